"""The device is chosen as asked, and what keeps it from being used is said in one line."""

import json
import logging
import os
import platform

import pytest
import torch

import kpac
from kpac import environment
from kpac.cli import main
from kpac.environment import check_usable, choose_device, device_name, out_of_memory_explained
from kpac.errors import UserError


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
