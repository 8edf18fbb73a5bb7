"""Threads give results in order, and leave PyTorch as they found it; loops compile anywhere."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from kpac.cpu.compiled import access, array, code_hash
from kpac.cpu.parallel import in_threads, spans


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_from_single_threads_without_gradients(threads):
    def work(index: int) -> tuple[int, bool]:
        time.sleep(0.02 * (3 - index % 3))
        assert threads == 1 or torch.get_num_threads() == 1
        return index, (torch.ones(1, requires_grad=True) * 2).requires_grad

    with torch.no_grad():
        assert list(in_threads(work, range(12))) == [(index, False) for index in range(12)]
    assert torch.get_num_threads() == threads


def test_inference_tensors_can_be_filled(threads):
    with torch.inference_mode():
        values = torch.zeros(6)
        for _ in in_threads(lambda index: values[index].fill_(index), range(6)):
            continue
    assert values.tolist() == [0, 1, 2, 3, 4, 5]


def test_an_error_ends_the_work_and_restores_the_number_of_threads(threads):
    done = []

    def work(index: int) -> None:
        if index == 2:
            raise ValueError("two")
        done.append(index)

    with pytest.raises(ValueError, match="two"):
        list(in_threads(work, range(1000)))
    assert len(done) < 50
    assert torch.get_num_threads() == threads


def test_threads_that_begin_meanwhile_have_the_usual_number(threads):
    found = []
    list(in_threads(str, range(3)))
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [threads]
    assert torch.get_num_threads() == threads


def test_spans_cover_everything_at_multiples():
    for size, most, multiple in ((280, 26, 4), (1, 4, 4), (7, 3, 1), (13, 4, 4)):
        cuts = list(spans(size, most, multiple))
        assert [top for top, _ in cuts] == [0, *(bottom for _, bottom in cuts[:-1])]
        assert cuts[-1][1] == size
        assert all(top % multiple == 0 and top < bottom <= top + most + multiple for top, bottom in cuts)


def test_bfloat16_is_read_and_rounded_as_pytorch_does():
    load, store = access(torch.bfloat16)
    values = torch.cat([torch.randn(2000) * 10.0 ** torch.randint(-30, 30, (2000,)), torch.tensor([0.0, -0.0, 1.0])])
    rounded = values.bfloat16()
    assert [int(store(np.float32(value))) for value in values] == array(rounded).tolist()
    assert [load(bits) for bits in array(rounded)] == rounded.float().tolist()


LOOP = """
import sys
from kpac.cpu.compiled import compiled

def make(constant, inner=None):
    @compiled
    def loop(value):
        return value + constant if inner is None else inner(value) * constant
    return loop

outer = make(int(sys.argv[1]), make(2))
print(outer(3), sum(outer.stats.cache_hits.values()))
"""


def run_loop(tmp_path, constant: int) -> str:
    script = tmp_path / "loop.py"
    script.write_text(LOOP)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, str(script), str(constant)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_another_process_finds_what_was_compiled_for_the_same_constants(tmp_path):
    assert [run_loop(tmp_path, constant) for constant in (10, 10, 20, 10, 20)] == [
        "50 0",
        "50 1",
        "100 0",
        "50 1",
        "100 1",
    ]


def test_identity_of_code_is_that_of_all_its_constants():
    def returning(source: str):
        return compile(f"def make():\n def inner(x):\n  return x + {source}\n return inner", "same.py", "exec")

    assert code_hash(returning("1.5")) == code_hash(returning("1.5"))
    assert code_hash(returning("1.5")) != code_hash(returning("2.5"))


def test_loops_compile_where_no_folder_can_be_written(tmp_path):
    code = "import torch; from kpac.cpu.compiled import access; print(access(torch.bfloat16)[0](16256))"
    blocked = tmp_path / "file"
    blocked.touch()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(blocked / "folder")}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout.strip()) == (0, "1.0"), found.stderr
