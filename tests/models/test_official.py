"""The authors' checkpoints are read as they are, and as data alone."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from kpac import UserError, create_model
from kpac.models import official_file
from kpac.models.official import load_official, save_official
from tests.models import golden

SAMPLE = golden.DATA / "2level_small_authors_format.npz"
NAMES = {"2level": "kpac_2level", "3level": "kpac_3level", "dual": "kpac_dual"}


def write_npz(path: Path, params: bytes, entry: str = "params.npy") -> Path:
    """An .npz whose entry is an object array with the given pickle."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, stream.getvalue() + params)
    return path


def filled(name: str) -> torch.nn.Module:
    case = golden.CASES[name]
    model = create_model(NAMES[case["variant"]], width=case["width_channels"], blocks=case["blocks"])
    golden.fill(model, golden.draw(name)[1])
    return model.eval()


def test_sample_written_by_python_2_reproduces_its_golden_output():
    with pytest.raises(UnicodeError):  # as the file's own kind of trouble
        np.load(SAMPLE, allow_pickle=True)["params"]
    model = load_official(SAMPLE)
    assert model.config["width"] == 16
    assert model.config["blocks"] == 3
    views, _ = golden.draw("2level_small")
    with torch.no_grad():
        output = model((views + 1) / 2) * 2 - 1
    assert (output - golden.output("2level_small")).abs().max() < 1e-5


@pytest.mark.parametrize("order", ["<", ">"])
def test_file_written_by_python_3_holds_the_same(tmp_path, order):
    arrays = np.empty(75, dtype=object)
    for index, (_, values) in enumerate(golden.draw("2level_small")[1]):
        arrays[index] = np.asfortranarray(values, dtype=f"{order}f4")
    np.savez(tmp_path / "again.npz", params=arrays)
    first, second = (load_official(path).state_dict() for path in (SAMPLE, tmp_path / "again.npz"))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", golden.CASES)
def test_round_trip_is_exact_and_detects_the_variant(tmp_path, name):
    model = filled(name)
    save_official(model, tmp_path / "m.npz")
    again = load_official(tmp_path / "m.npz")
    assert again.config == model.config
    assert all(torch.equal(again.state_dict()[key], value) for key, value in model.state_dict().items())


def test_dual_2level_network_round_trips(tmp_path):
    model = create_model("kpac_2level", width=4, blocks=0, views=("center", "left", "right"))
    save_official(model, tmp_path / "m.npz")
    assert load_official(tmp_path / "m.npz").config == model.config


def test_written_file_holds_the_authors_order_and_layout(tmp_path):
    save_official(filled("2level"), tmp_path / "m.npz")
    params = np.load(tmp_path / "m.npz", allow_pickle=True)["params"]
    for array, (name, values) in zip(params, golden.draw("2level")[1], strict=True):
        np.testing.assert_array_equal(array, values, err_msg=name)


def test_written_pickle_names_what_python_2_knows(tmp_path):
    import pickletools

    save_official(create_model("kpac_2level", width=4), tmp_path / "m.npz")
    content = zipfile.ZipFile(tmp_path / "m.npz").read("params.npy")
    pickled = content[content.index(b"\x80\x02") :]
    opcodes = list(pickletools.genops(pickled))
    assert max(opcode.proto for opcode, _, _ in opcodes) <= 2
    names = {argument for opcode, argument, _ in opcodes if opcode.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype", "_codecs encode"}


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ["KPAC_TEST_TRAP"],)


def test_file_that_names_something_to_execute_is_refused_before_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("KPAC_TEST_TRAP", str(tmp_path / "trap"))
    path = write_npz(tmp_path / "evil.npz", pickle.dumps([Malicious()], protocol=2))
    with pytest.raises(UserError, match=r"evil.npz: names 'posix.mkdir'.*refused"):
        load_official(path)
    assert not (tmp_path / "trap").exists()


ARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4tR(K\x03X\x01\x00\x00\x00<tb"
EMPTY = RECONSTRUCT + b"(" + ARRAY + b"(K\x00tC\x01btR"


STRANGE = {
    # Once a segmentation fault: an object array whose pointers come from the file.
    "pointers": ARRAY + b"((K\x01tcnumpy\ndtype\n(X\x01\x00\x00\x00OtRC\x08AAAAAAAAtR.",
    "pointers as a state": EMPTY + b"(K\x01(K\x01tcnumpy\ndtype\n(X\x01\x00\x00\x00OtRI00\nC\x08AAAAAAAAtb.",
    "huge array": ARRAY + b"((J\xff\xff\xff\x7ftcnumpy\ndtype\n(X\x02\x00\x00\x00f8tRtR.",
    "huge shape": b"]" + EMPTY + b"(K\x01(J\xff\xff\xff\x7ft" + DTYPE + b"I00\nC\x04AAAAtba.",
    "fewer bytes": b"]" + EMPTY + b"(K\x01(K\x02t" + DTYPE + b"I00\nC\x04AAAAtba.",
    "huge length": b"\x8e" + b"\xff" * 8 + b".",
    "huge memo": b"Nr\xff\xff\xff\xff.",
    "object of another file": b"X\x01\x00\x00\x00xQ.",
    "attribute of a class": RECONSTRUCT + b"N}X\x04\x00\x00\x00evilK\x01s\x86b.",
    "array without a state": b"]" + EMPTY + b"a.",
    "number": b"K\x01.",
    "nothing": b"",
}


@pytest.mark.parametrize("params", STRANGE.values(), ids=STRANGE)
def test_strange_pickle_is_one_line(tmp_path, params):
    path = write_npz(tmp_path / "strange.npz", b"\x80\x03" + params)
    with pytest.raises(UserError) as error:
        load_official(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not hasattr(official_file._Array, "evil")


def test_strange_shape_makes_no_network(tmp_path):
    weights = np.empty(24, dtype=object)
    weights[:] = [np.zeros((5, 5, 3, 200_000), np.float32), *[np.zeros(3, np.float32)] * 23]
    np.savez_compressed(tmp_path / "wide.npz", params=weights)
    with pytest.raises(UserError, match=r"parameter 1 .* found"):
        load_official(tmp_path / "wide.npz")


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_params_of_another_form_are_named(tmp_path, shape):
    params = np.empty(shape, dtype=object)
    params.fill(np.zeros(3, np.float32))
    np.savez(tmp_path / "other.npz", params=params)
    with pytest.raises(UserError, match="'params' cannot be read as a pickled array of arrays"):
        load_official(tmp_path / "other.npz")


def test_entry_without_its_suffix_is_named(tmp_path):
    with pytest.raises(UserError, match=r"expected an entry 'params.npy', found params$"):
        load_official(write_npz(tmp_path / "other.npz", b"", entry="params"))


def test_corrupted_bytes_are_one_line(tmp_path):
    content = bytearray(SAMPLE.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"damaged.npz: not a whole .npz file"):
        load_official(tmp_path / "damaged.npz")


@pytest.mark.parametrize("kept", [100, 400_000, -10])
def test_truncated_file_is_one_line(tmp_path, kept):
    path = tmp_path / "cut.npz"
    path.write_bytes(SAMPLE.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cut.npz: not a whole .npz file"):
        load_official(path)


def test_file_without_params_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(UserError, match=r"other.npz: expected an entry 'params.npy', found weights.npy"):
        load_official(tmp_path / "other.npz")


def test_params_that_are_plain_numbers_are_named(tmp_path):
    np.savez(tmp_path / "plain.npz", params=np.zeros(3))
    with pytest.raises(UserError, match=r"plain.npz: 'params' cannot be read .*plain numbers"):
        load_official(tmp_path / "plain.npz")


def test_another_architecture_is_refused_with_the_first_difference(tmp_path):
    weights = [values for _, values in golden.draw("2level_small")[1]]
    weights[12] = np.zeros((7, 7, 32, 16), np.float32)
    arrays = np.empty(len(weights), dtype=object)
    arrays[:] = weights
    np.savez(tmp_path / "other.npz", params=arrays)
    with pytest.raises(UserError) as error:
        load_official(tmp_path / "other.npz")
    for words in ("parameter 12", "blocks.0.kernels.0", "(5, 5, 32, 16)", "(7, 7, 32, 16)"):
        assert words in str(error.value)


def test_missing_parameter_is_named(tmp_path):
    weights = [values for _, values in golden.draw("2level_small")[1]][:-1]
    arrays = np.empty(len(weights), dtype=object)
    arrays[:] = weights
    np.savez(tmp_path / "short.npz", params=arrays)
    with pytest.raises(UserError, match=r"'decoder.1.merge.bias' .* should be \(3,\), found nothing"):
        load_official(tmp_path / "short.npz")


@pytest.mark.parametrize(
    "options",
    [
        {"share_kernel": False},
        {"scale_attention": False},
        {"shape_attention": False},
        {"block": "plain"},
        {"dilations": [1, 2]},
        {"kernel_size": 3},
        {"shape_pooling": {"window": [8, 8]}},
    ],
    ids=str,
)
def test_ablated_network_cannot_be_written_for_the_authors_graph(tmp_path, options):
    with pytest.raises(UserError, match="the authors' format requires"):
        save_official(create_model("kpac_2level", width=4, **options), tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())
