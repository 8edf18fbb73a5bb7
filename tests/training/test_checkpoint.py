"""A checkpoint is whole or not there, and reading one executes nothing."""

import hashlib
import io
import logging
import os
import resource
from pathlib import Path

import pytest
import torch

from kpac.commands.remedies import explain
from kpac.errors import UserError
from kpac.training.checkpoint import Checkpoints, read_checkpoint


def state(iteration: int) -> dict:
    return {"iteration": iteration, "model": {"weight": torch.full((100, 100), float(iteration))}}


@pytest.fixture
def three(tmp_path) -> Checkpoints:
    saved = Checkpoints(tmp_path / "run 1" / "checkpoints", keep=3)
    for iteration in (10, 20, 30):
        saved.save(state(iteration))
    return saved


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def seal(content: bytes) -> bytes:
    return content + b"\nsha256 %s\n" % hashlib.sha256(content).hexdigest().encode()


def test_newest_state_is_read_as_it_was_saved(three):
    found = three.newest()
    assert found["iteration"] == 30
    assert torch.equal(found["model"]["weight"], torch.full((100, 100), 30.0))


def test_torch_alone_reads_a_checkpoint(three):
    assert torch.load(three.newest_path(), weights_only=True)["iteration"] == 30


def test_the_last_few_and_the_best_are_kept(tmp_path):
    saved = Checkpoints(tmp_path, keep=2)
    for iteration in range(1, 7):
        saved.save(state(iteration), best=2)
    assert names(saved) == [f"iteration_000000{iteration}.pt" for iteration in (2, 5, 6)]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_damaged_newest_is_named_and_the_one_before_is_used(three, damage, caplog):
    path = three.newest_path()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    ways = {
        "cut": path.read_bytes()[:-1000],
        "flipped": bytes(content),
        "empty": b"",
        "foreign": b"PK\3\4 no checkpoint",
    }
    path.write_bytes(ways[damage])
    with caplog.at_level(logging.WARNING):
        assert three.newest()["iteration"] == 20
    assert "iteration_0000030.pt: damaged or cut short" in caplog.text
    assert "using iteration_0000020.pt instead" in caplog.text


def test_only_damaged_checkpoints_are_an_error(three):
    for path in three.folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"iteration_0000010.pt: damaged .*no other checkpoint is left"):
        three.newest()


class Malicious:
    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


def test_code_in_a_file_does_not_run(three, tmp_path):
    buffer = io.BytesIO()
    torch.save({"format": 1, "iteration": 40, "model": Malicious(tmp_path / "victim")}, buffer)
    path = three.folder / "iteration_0000040.pt"
    path.write_bytes(seal(buffer.getvalue()))
    with pytest.raises(UserError, match="not a training checkpoint of kpac; nothing in it was executed"):
        read_checkpoint(path)
    assert three.newest()["iteration"] == 30
    assert not (tmp_path / "victim").exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert (tmp_path / "victim").exists()  # what would have happened


def test_later_format_says_to_update(three):
    buffer = io.BytesIO()
    torch.save({"format": 99}, buffer)
    path = three.folder / "iteration_0000040.pt"
    path.write_bytes(seal(buffer.getvalue()))
    with pytest.raises(UserError, match="has format 99, this version of kpac reads 1; update kpac"):
        read_checkpoint(path)


def test_full_disk_keeps_the_previous_checkpoint_whole_and_says_so(three):
    before, limits = names(three), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(UserError) as error:
            three.save(state(40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = explain(error.value)
    assert "iteration_0000040.pt: cannot be written (File too large)" in message
    assert (
        "the earlier iteration_0000030.pt is intact; make room and continue: "
        f"kpac train --resume '{three.folder.parent}'" in message
    )
    assert names(three) == before
    assert three.newest()["iteration"] == 30


def test_what_a_killed_save_left_is_removed(three):
    (three.folder / ".iteration_0000040.123.partial.pt").write_bytes(b"half")
    three.remove_partial()
    assert names(three) == [f"iteration_00000{iteration}.pt" for iteration in (10, 20, 30)]
