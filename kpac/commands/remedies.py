"""Advice that the command line adds to an error: one text for each `remedy` that the library names."""

import os
import shlex
from typing import Any

from kpac.errors import Stopped, UserError

REMEDIES = {
    "approximate": "restore whole images, or add --approximate",
    "approximate_tile": "try --approximate --tile {tile}",
    "authors": "--authors writes it in their format",
    "cache": "kpac data cache takes it as --cache",
    "configs": "name the folder of the paper's configurations with --configs",
    "data": "name the data set's folder with --data",
    "dual_views": "name a data set with --data, or the views of the photographs with --left and --right",
    "layout": "name it with --layout {layout} (data.layout in a YAML file)",
    "lpips_weights": "or name a copy of it with --lpips-weights",
    "make_room": "make room and continue: {resume}",
    "missing_views": "name them with {flags}",
    "mix_protocols": "leave one out, or add --mix-protocols",
    "more_iterations": "to train longer: {resume} train.iterations={iterations} --allow-changes",
    "no_attention": "leave out --attention",
    "no_reference": "choose metrics without targets with --no-reference",
    "outputs_apart": "evaluate them in two commands with different --output folders",
    "overwrite": "--overwrite replaces it",
    "page_folder": "name another folder with --output, or write beside those files with --overwrite",
    "pair_by_order": "on the command line --pair-by-order",
    "plugin": "a network of your own needs --plugin FILE or its package",
    "port": "choose another with --port",
    "precision": "try --precision float32",
    "replace": "--overwrite replaces it, or name another {place}",
    "restore": "evaluate again with --save-images, or compute them now with --restore",
    "results_folder": "name another folder with --output, or replace them with --overwrite",
    "resume": "continue with: {resume}",
    "resume_from": "continue from {checkpoint} with: {resume}",
    "resume_changed": "add --allow-changes to continue with these changes",
    "resume_slower": "continue from {checkpoint} with a lower learning rate: {resume} "
    "train.optimizer.learning_rate=... --allow-changes",
    "run_exists": "continue it with '{resume}', replace it with --overwrite, or choose another name with name=...",
    "save_images": "evaluate again with --save-images",
    "smaller_splits": "reduce --val or --test",
    "start_again": "start it again with --overwrite",
    "tile": "try --tile {tile}",
    "tile_or_memory": "restore in tiles with --tile {tile}, or close other programs; finished images are kept",
    "unneeded_views": "leave out {flags}",
    "whole": "leave out --tile",
}


def explain(error: UserError | Stopped) -> str:
    """One line: the error, and what to do about it on the command line."""
    if not error.remedy:
        return str(error)
    return f"{error}; {advice(error.remedy, **error.values)}"


def advice(remedy: str, **values: Any) -> str:
    """The text of a remedy.

    Args:
        remedy: a key of `REMEDIES`.
        values: fill the text's placeholders. `folder`, a run's folder, also gives `resume`, the command that resumes
            the run; `views` also gives `flags`.
    """
    if "folder" in values:
        launcher = "torchrun ... scripts/train.py" if "TORCHELASTIC_RUN_ID" in os.environ else "kpac train"
        values["resume"] = f"{launcher} --resume {shlex.quote(str(values['folder']))}"
    if "views" in values:
        values["flags"] = " and ".join(f"--{view}" for view in values["views"])
    return REMEDIES[remedy].format(**values)
