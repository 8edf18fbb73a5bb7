"""The device is chosen as asked, and what keeps it from being used is said in one line."""

import json
import logging
import os
import platform
import subprocess
import sys

import pytest
import torch

import kpac
from kpac import environment
from kpac.cli import main
from kpac.environment import check_usable, choose_device, device_name, out_of_memory_explained
from kpac.errors import OutOfMemory, UserError


@pytest.mark.parametrize(("threads", "words"), [(1, "CPU, 1 thread"), (2, "CPU, 2 threads")])
def test_threads_are_counted_in_words(threads, words, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert device_name(torch.device("cpu")) == words


def test_tests_without_a_gpu_marker_compute_on_the_cpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert choose_device("auto") == torch.device("cpu")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A machine with an NVIDIA driver that this PyTorch cannot use."""
    monkeypatch.setattr(environment, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    old = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver."

    def fail(*_, **__):
        raise RuntimeError(old)

    monkeypatch.setattr(torch, "zeros", fail)


def test_driver_that_pytorch_cannot_use_is_no_silent_cpu(driver, caplog, monkeypatch):
    with caplog.at_level(logging.WARNING, "kpac"):
        assert choose_device("cpu").type == "cpu"
        assert not caplog.records
        assert choose_device("auto").type == "cpu"
    (record,) = caplog.records
    words = "cannot use it (The NVIDIA driver on your system is too old (found version 11040)); computing on the CPU"
    assert words in record.getMessage()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    choose_device("auto")
    assert len(caplog.records) == 1


def test_cuda_that_is_asked_for_and_cannot_be_used_says_why(driver):
    with pytest.raises(UserError, match=r"'cuda' was asked for, .*\(The NVIDIA driver on your system is too old"):
        choose_device("cuda")
    with pytest.raises(UserError, match=r"device cuda:0: cannot be used \(The NVIDIA driver .*nvidia-smi"):
        check_usable(torch.device("cuda", 0))


def test_training_without_memory_ends_in_one_line():
    with (
        pytest.raises(UserError, match=r"CPU, .*: out of memory; raise train.accumulate, or lower train.batch_size"),
        out_of_memory_explained(torch.device("cpu")),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_report_for_a_bug_names_versions_and_devices(capsys, monkeypatch):
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["torch"] == torch.__version__
    assert facts["python"] == platform.python_version()
    assert facts["folder"] == str(kpac.__path__[0])
    assert f"{torch.get_num_threads()} threads" in facts["cpu"]
    monkeypatch.setattr("kpac.cpu.missing", lambda: "No module named 'numba'")
    assert main(["env"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if not line.startswith("gpu "))
    assert lines["torch"] == torch.__version__
    assert lines["kpac.cpu"] == "off: No module named 'numba'"


def test_validation_without_memory_does_not_speak_of_crops():
    with (
        pytest.raises(UserError, match=r"^validation: out of memory for 9x6 pixels whole; cut the images of the val"),
        out_of_memory_explained(torch.device("cpu")),
    ):
        raise OutOfMemory("out of memory for 9x6 pixels whole", "tile_or_memory", tile=64)


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_exhausted_memory_without_an_exception_class_is_recognized(text):
    with pytest.raises(UserError, match=": out of memory; raise train"), out_of_memory_explained(torch.device("cpu")):
        raise RuntimeError(text)


@pytest.mark.parametrize("text", ["of the network", "CUDA error: an illegal memory access was encountered"])
def test_other_errors_stay(text):
    with pytest.raises(RuntimeError, match=text), out_of_memory_explained(torch.device("cpu")):
        raise RuntimeError(text)


def test_devices_by_number_and_apples(monkeypatch):
    for name, words in (
        ("cuda:7", "'cuda:7' was asked for, but PyTorch finds no CUDA device"),
        ("mps", "finds no Apple GPU"),
        ("gpu", "expected auto, cpu, cuda, cuda:N or mps, found 'gpu'"),
    ):
        with pytest.raises(UserError, match=words):
            choose_device(name)
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert chosen == [1]
    with pytest.raises(UserError, match="PyTorch finds 2 CUDA devices"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == torch.device("mps")


def test_commands_start_without_fcntl_and_resource():
    code = "import sys, kpac.images; sys.modules.update(fcntl=None, resource=None); import kpac.commands.restore; "
    code += "import kpac.restore.photos, kpac.evaluation.run, kpac.training.trainer; print('started')"
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert found.stdout == "started\n", found.stderr
