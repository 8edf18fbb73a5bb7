"""Evaluates a method on a data set and writes the results; several ranks can share the images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from kpac.cpu import freed_memory_kept
from kpac.data.dataset import Scene, SceneDataset
from kpac.data.layouts import SceneFiles, find_scenes
from kpac.data.read_ahead import read_ahead
from kpac.distributed import Ranks
from kpac.environment import device_name
from kpac.errors import Stopped, UserError
from kpac.evaluation.evaluator import Evaluated, score_scene, to_array
from kpac.evaluation.folders import IMAGES, RECORDS, clear_replaced
from kpac.evaluation.journal import Journal, fingerprint
from kpac.evaluation.methods import Method, SavedImages
from kpac.evaluation.perceptual import cached_weights
from kpac.evaluation.protocols import Protocol, find_protocol
from kpac.evaluation.request import Evaluation
from kpac.evaluation.results import FILE, make_results
from kpac.evaluation.scored import scene_facts
from kpac.evaluation.scorer import Scorer
from kpac.files import write_json
from kpac.images import from_float, read_header, read_pixels, to_float, write_pixels
from kpac.precision import PRECISION

SHOWN = 2  # number of scenes drawn in the report


Report = Callable[[Path, dict[str, Any], Protocol, Sequence[Evaluated]], None]
"""Writes a report for people. Arguments: folder, content of results.json, protocol, scenes to draw."""


def evaluate_method(
    method: Method, evaluation: Evaluation, folder: Path, ranks: Ranks, report: Report
) -> dict[str, Any]:
    """Scores all unfinished scenes, and writes the report and results.json.

    Args:
        method: the method, on the device of this rank.
        evaluation: data, protocol and metrics.
        folder: folder for the results.
        ranks: this rank, and communication with the others.
        report: writes the report, for example `kpac.reporting.report.write_report`.

    Returns:
        The content of results.json.

    Raises:
        UserError: the data or the protocol cannot be used.
        Stopped: Ctrl-C was pressed; finished images are kept.
    """
    work = ranks.on_all(lambda: _Work(method, evaluation, folder, ranks))
    ranks.on_first(lambda: clear_replaced(method, evaluation, folder))
    ranks.on_all(work.score_missing)
    results = ranks.on_first(lambda: work.write(report))
    ranks.barrier()
    return results


def find_scorable(method: Method, evaluation: Evaluation) -> list[SceneFiles]:
    """Finds the scenes of an evaluation, and checks from file headers that they can be scored.

    Raises:
        UserError: the scenes cannot be scored with these data, this protocol or this method.
    """
    protocol = find_protocol(evaluation.protocol)
    files = find_scenes(
        evaluation.data,
        evaluation.split,
        method.views,
        evaluation.layout,
        targets=False,
        pair_by_order=evaluation.pair_by_order,
    )
    method.check(files)
    has_targets = all(scene.target for scene in files)
    if not has_targets and set(evaluation.required) - set(evaluation.no_reference):
        raise UserError(f"{evaluation.data}: has no targets, which {', '.join(evaluation.required)} needs")
    if not has_targets and isinstance(method, SavedImages) and not evaluation.no_reference:
        raise UserError(f"{evaluation.data}: has no targets", "no_reference")
    lpips = bool(evaluation.lpips_weights) or cached_weights(protocol.lpips.backbone).is_file()
    for scene in files if has_targets else []:
        header = read_header(scene.paths[0])
        try:
            if header:
                protocol.check_size(header.height, header.width, lpips=lpips)
        except ValueError as error:
            raise UserError(f"scene '{scene.name}' {error}") from None
    return files


class _Work:
    """One evaluation on one rank: finds unfinished scenes, scores them, and writes the results."""

    def __init__(self, method: Method, evaluation: Evaluation, folder: Path, ranks: Ranks):
        self.method, self.evaluation, self.folder, self.ranks = method, evaluation, folder, ranks
        self.protocol = find_protocol(evaluation.protocol)
        self.files = find_scorable(method, evaluation)
        self.has_targets = all(scene.target for scene in self.files)
        self.save_images = evaluation.save_images or (not self.has_targets and not isinstance(method, SavedImages))
        self.dataset = SceneDataset(self.files, self.protocol.bit_depth)
        self.scorer = Scorer(
            self.protocol,
            ranks.device,
            perceptual=self.has_targets,
            lpips_weights=evaluation.lpips_weights,
            no_reference=evaluation.no_reference,
            required=evaluation.required,
        )
        self.journal = Journal(folder / RECORDS, ranks.rank)
        self.shown = np.linspace(0, len(self.files) - 1, min(SHOWN, len(self.files)), dtype=int).tolist()
        settings, metrics = self.protocol.settings(), [*self.scorer.names, self.scorer.provenance]
        computed = [ranks.device.type, PRECISION]
        self.fingerprints = [
            fingerprint(scene, [*method.identity(scene), *computed], settings, metrics) for scene in self.files
        ]

    def missing(self) -> list[int]:
        """Indices of scenes without a record, or without an image that should be kept."""
        finished = self.journal.finished()
        return [
            index
            for index, key in enumerate(self.fingerprints)
            if key not in finished or not all(path.is_file() for path in self._kept(index))
        ]

    def score_missing(self) -> None:
        """Restores and scores this rank's share of the missing scenes."""
        mine = self.missing()[self.ranks.rank :: self.ranks.world_size]
        bar = tqdm(total=len(mine), desc="evaluating", unit="image", disable=None if self.ranks.is_first else True)
        try:
            with bar, freed_memory_kept():
                for index, scene in zip(mine, read_ahead(self.dataset, mine), strict=True):
                    evaluated = score_scene(scene, self.method.restore, self.scorer)
                    for path in self._kept(index):
                        depth: Literal[8, 16] = 16 if path.parent.name == RECORDS else _file_depth(self.files[index])
                        write_pixels(path, from_float(to_array(evaluated.output), depth))
                    record = evaluated.record() | scene_facts(self.files[index], scene)
                    self.journal.add(self.fingerprints[index], record)
                    bar.update()
        except KeyboardInterrupt:
            done = len(self.files) - len(self.missing())
            raise Stopped(
                f"interrupted: {done} of {len(self.files)} images are finished; repeat the command to continue",
                130,
            ) from None

    def write(self, report: Report) -> dict[str, Any]:
        """Writes the report, then results.json."""
        finished = self.journal.finished()
        records = [finished[key] for key in self.fingerprints]
        size = self.protocol.prepare(self.dataset[0].views).shape[-2:]
        device = device_name(self.ranks.device)
        results = make_results(self.method, self.evaluation, self.scorer, records, self.method.cost(*size), device)
        shown = [self._evaluated(index, records[index]) for index in self.shown]
        report(self.folder, results, self.protocol, shown)
        write_json(self.folder / FILE, results)
        return results

    def _kept(self, index: int) -> list[Path]:
        """Files that keep the output of a scene: for comparison.png, for the user, both, or none."""
        name = self.files[index].name + ".png"
        kept = [self.folder / RECORDS / f"{self.fingerprints[index][:8]}-{name}"] if index in self.shown else []
        return kept + ([self.folder / IMAGES / name] if self.save_images else [])

    def _evaluated(self, index: int, record: dict[str, Any]) -> Evaluated:
        scene = self.dataset[index]
        pixels = to_float(read_pixels(self._kept(index)[0]))
        target = None if scene.target is None else self.protocol.prepare(scene.target)
        sized = Scene(scene.name, self.protocol.prepare(scene.views), target, scene.bit_depth)
        output = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        return Evaluated(sized, output, record, record["input"], record.get("seconds"))


def _file_depth(scene: SceneFiles) -> Literal[8, 16]:
    header = read_header(scene.paths[0])
    return 16 if header and header.bit_depth == 16 else 8
