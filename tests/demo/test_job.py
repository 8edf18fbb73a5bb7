"""A photograph on the page is restored as `kpac restore` does it, and can be cancelled at any moment."""

import ast
import inspect
import threading

import numpy as np
import pytest
import torch

import kpac
from kpac.cli import main
from kpac.demo.job import ADVICE, RestoreJob
from kpac.images import write_pixels
from kpac.restore import restorer
from tests.test_messages import remedies


@pytest.mark.parametrize("tile", ["auto", 32])
@pytest.mark.parametrize("name", ["turned", "deep"])
def test_the_file_is_that_of_kpac_restore(tmp_path, weights, photographs, name, tile):
    path = photographs[name]
    job = RestoreJob(kpac.load_model(weights), {"tile": tile}, {"center": path}, tmp_path / path.name)
    job.run()
    assert job.error is None
    assert job.result.tile == (None if tile == "auto" else tile)
    flags = ["-m", str(weights), "-o", str(tmp_path / "restored"), "--tile", str(tile)]
    assert main(["restore", str(path), *flags]) == 0
    assert job.result.file.read_bytes() == (tmp_path / "restored" / path.name).read_bytes()


def test_attention_is_laid_over_the_photograph(tmp_path, weights, photographs):
    views = {"center": photographs["deep"]}
    job = RestoreJob(kpac.load_model(weights), {}, views, tmp_path / "deep.tif", attention=True)
    job.run()
    ((overlay, title),) = job.result.attention
    assert overlay.shape == job.result.original.shape == (64, 90, 3)
    assert title.startswith("block 1: expected dilation")
    assert np.ptp(overlay) > 0


def test_a_broken_file_is_one_sentence_without_our_folders(tmp_path, weights, photographs):
    job = RestoreJob(kpac.load_model(weights), {}, {"center": photographs["broken"]}, tmp_path / "broken.png")
    job.run()
    assert job.result is None
    assert job.error.startswith("broken.png: ")
    assert str(photographs["broken"].parent) not in job.error
    assert "\n" not in job.error
    assert not job.output.exists()


@pytest.mark.parametrize("tile", [None, 32])
def test_a_job_ends_soon_after_it_is_cancelled(tmp_path, weights, tile):
    path = tmp_path / "photo.png"
    write_pixels(path, np.zeros((128, 128, 3), np.uint8))
    job = RestoreJob(kpac.load_model(weights), {"tile": tile}, {"center": path}, tmp_path / "restored.png")
    done = []
    restoring = threading.Event()

    def slowly(*_):
        done.append(1)
        job.cancel()
        restoring.set()

    job.model.fusion[0].register_forward_hook(slowly)
    job.start()
    job.join(60)
    assert not job.is_alive()
    assert restoring.is_set()
    assert job.result is None
    assert job.error is None
    assert len(done) == 1
    assert not job.output.exists()


def test_progress_counts_the_tiles(tmp_path, weights):
    shares = []
    restorer = kpac.Restorer(kpac.load_model(weights), tile=32, progress=shares.append)
    restorer(np.zeros((64, 96, 3), np.float32))
    assert shares == sorted(shares)
    assert len(shares) > 4
    assert shares[-1] == pytest.approx(1)


def failing(weights, path, output, **options) -> str:
    job = RestoreJob(kpac.load_model(weights), options, {"center": path}, output)
    job.model.fusion[-1].bias.data[0] = float("nan")
    job.run()
    return job.error


def test_what_to_do_is_in_the_words_of_the_page(tmp_path, weights, photographs, monkeypatch):
    path, output = photographs["deep"], tmp_path / "deep.tif"
    assert "weights are damaged" in failing(weights, path, output, precision="float32")
    assert failing(weights, path, output, precision="bfloat16").endswith("; start the page again in float32")

    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(kpac.Restorer, "_restore", exhausted)
    told = failing(weights, path, output, tile=512)
    assert told.endswith("; try a smaller photograph, or start the page again with tiles of 128")
    assert "--" not in told


def test_page_knows_what_to_do_about_every_error_of_the_restorer():
    known = {remedy for remedy, _ in remedies(ast.parse(inspect.getsource(restorer)))}
    # The page begins with settings that were checked, and asks for the views that the network reads.
    assert known - {"approximate", "missing_views", "unneeded_views"} == ADVICE.keys()
