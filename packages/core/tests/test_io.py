"""Files of arrays: every format there and back, what real files of PyTorch hold, atomic writing, modules."""

from __future__ import annotations

import hashlib
import io as streams
import os
import pickle
import stat
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

import metafuse as mf
from io_kit import LEGACY, ZIP, unpacked
from metafuse import io, nn
from metafuse.dtypes import DTYPES
from metafuse.errors import ArgumentError, DTypeError

RNG = np.random.default_rng(3)


def real(text):
    return streams.BytesIO(unpacked(text))


def arrays():
    """One array of every element type."""
    found = {}
    for name, dtype in DTYPES.items():
        values = RNG.integers(0, 2 if name == "bool" else 100, (2, 3))
        found[name] = mf.array(values, dtype)
    found["huge"] = mf.array(np.array([2**53 + 1, -(2**62)]), "int64")
    found["small"] = mf.array(np.array([1e-300, np.nan, -np.inf]), "float64")
    found["empty"] = mf.array(np.zeros((0, 3), np.float32))
    return found


def same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.parametrize("text", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_files_of_pytorch(text):
    found = mf.load(real(text))
    assert list(found) == ["w", "tail", "half", "n", "p", "epoch"]
    np.testing.assert_array_equal(found["w"].numpy(), np.arange(6).reshape(2, 3).T)
    assert found["tail"].numpy().tolist() == [4, 5]
    assert (found["half"].dtype, found["half"].item()) == ("bfloat16", 1.5)
    assert (found["n"].dtype, found["n"].shape, found["n"].item()) == ("int64", (1,), 7)
    assert found["p"].requires_grad
    assert not found["w"].requires_grad
    assert found["epoch"] == 3
    plain = io.load_pytorch(real(text), to="numpy")
    assert (type(plain["w"]), plain["n"].shape, plain["half"].dtype) == (np.ndarray, (), np.float32)
    plain["w"][0, 0] = 9  # is nobody else's memory


@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "safetensors"])
def test_formats_that_keep_every_type(tmp_path, ending):
    path = tmp_path / f"all.{ending}"
    given = arrays()
    mf.save(given, path)
    found = mf.load(str(path))
    same({name: found[name] for name in given}, given)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with open(path, "rb") as file:
        same({name: v for name, v in mf.load(file).items() if name == "huge"}, {"huge": given["huge"]})
    for name, value in mf.load(path, to="numpy").items():
        assert isinstance(value, np.ndarray), name
        assert value.dtype == given[name].dtype.numpy


def test_numpy_files(tmp_path):
    given = arrays()
    mf.save({**given, "file": np.arange(3)}, tmp_path / "all.npz")
    found = mf.load(tmp_path / "all.npz")
    for name, value in given.items():
        assert found[name].dtype == value.dtype.numpy
        np.testing.assert_array_equal(found[name], value.numpy())
    with np.load(tmp_path / "all.npz") as archive:
        assert archive["bfloat16::bfloat16"].dtype == np.uint16
        np.testing.assert_array_equal(archive["float16"], given["float16"].numpy())
        np.testing.assert_array_equal(archive["file"], np.arange(3))
    by_columns = np.asfortranarray(RNG.random((3, 4)))
    np.savez_compressed(tmp_path / "theirs.npz", a=by_columns, t=np.array(["ab", "c"]), n=np.float64(2.5))
    found = mf.load(tmp_path / "theirs.npz")
    np.testing.assert_array_equal(found["a"], by_columns)
    assert (found["t"].tolist(), found["n"].shape, float(found["n"])) == (["ab", "c"], (), 2.5)
    mf.save(mf.array(np.arange(6.0).reshape(2, 3)), tmp_path / "one.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "one.npy"), np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(mf.load(tmp_path / "one.npy"), np.arange(6).reshape(2, 3))
    np.savez(tmp_path / "none.npz")
    assert mf.load(tmp_path / "none.npz") == {}


NESTED = {
    "step": 3, "rate": 0.1, "name": "großes Netz", "none": None, "yes": True, "big": -(2**80), "raw": b"\0\xff",
    "list": [1, [2.5, "x"], (3, 4, 5, 6)], "ordered": OrderedDict(b=1, a=2), 7: "seven", (1, "a"): "pair",
}  # fmt: skip


@pytest.mark.parametrize("ending", ["pkl", "pth", "whatever"])
def test_nested_values(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    weights = mf.array(np.arange(4.0))
    mf.save({**NESTED, "weights": [weights, weights.numpy(), np.float32(2)]}, path)
    found = mf.load(path)
    own = found.pop("weights")
    assert found == NESTED
    assert isinstance(found["ordered"], OrderedDict)
    assert [float(np.sum(np.asarray(v))) for v in own] == [6, 6, 2]


def test_the_reference_apis_format(tmp_path):
    value = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "t": np.arange(4).reshape(2, 2).T,
        "n": np.int16(3),
    }
    content = pickle.dumps(value, 4)
    (tmp_path / "theirs").write_bytes(content + hashlib.sha1(content).digest() + b"HCAJSLHD")
    found = mf.load(tmp_path / "theirs")
    for name in value:
        np.testing.assert_array_equal(found[name], value[name])
        assert found[name].dtype == value[name].dtype
    mf.save(value, tmp_path / "ours.pkl")
    written = (tmp_path / "ours.pkl").read_bytes()
    assert written.endswith(b"HCAJSLHD")
    assert written[-28:-8] == hashlib.sha1(written[:-28]).digest()
    np.testing.assert_array_equal(pickle.loads(written)["w"], value["w"])
    for protocol in (2, 3, 4, 5):
        (tmp_path / "plain").write_bytes(
            pickle.dumps({"set": {1, 2}, "f": frozenset("a"), **value}, protocol)
        )
        found = mf.load(tmp_path / "plain")
        assert (found["set"], found["f"]) == ({1, 2}, frozenset("a"))
        np.testing.assert_array_equal(found["t"], value["t"])
    for array in (
        np.array(["häh", "b"]),
        np.array([b"ab", b""]),
        np.array([1 + 2j]),
        np.zeros((2, 0)),
        np.arange(3, dtype=">i4"),
    ):
        mf.save([array, array], tmp_path / "x.pkl")
        for again in mf.load(tmp_path / "x.pkl"):
            np.testing.assert_array_equal(again, array)


def test_one_var_twice_is_stored_once(tmp_path):
    shared = mf.array(RNG.random(1000))
    mf.save({"a": shared, "b": shared}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        assert [n for n in archive.namelist() if "/data/" in n] == ["archive/data/0"]
        assert archive.testzip() is None
    assert all(v.shape == (1000,) for v in mf.load(tmp_path / "x.pth").values())


def test_data_in_an_archive_are_aligned(tmp_path):
    mf.save([mf.array(np.arange(k, dtype=np.uint8)) for k in range(1, 9)], tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        for entry in archive.infolist():
            head = content[entry.header_offset : entry.header_offset + 30]
            begin = (
                entry.header_offset
                + 30
                + int.from_bytes(head[26:28], "little")
                + int.from_bytes(head[28:30], "little")
            )
            assert begin % 64 == 0


def test_safetensors_by_the_definition(tmp_path):
    header = (
        b'{"__metadata__":{"k":"v"},"b":{"dtype":"I16","shape":[2],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}'
    )
    content = (
        len(header).to_bytes(8, "little")
        + header
        + np.array([5, -6], "<i2").tobytes()
        + np.float32(1.5).tobytes()
    )
    (tmp_path / "x").write_bytes(content)
    found = mf.load(tmp_path / "x")
    assert (found["b"].numpy().tolist(), found["b"].dtype) == ([5, -6], "int16")
    assert (found["a"].item(), mf.load(tmp_path / "x", to="numpy")["a"].shape) == (1.5, ())
    io.save_safetensors(
        {"x": np.ones(3, np.int8), "y": np.ones(2)}, tmp_path / "y", metadata={"from": "here"}
    )
    written = (tmp_path / "y").read_bytes()
    length = int.from_bytes(written[:8], "little")
    assert length % 8 == 0
    assert written[8 : 8 + length].rstrip().startswith(b'{"__metadata__":{"from":"here"},"y":')
    assert list(io.load_safetensors(tmp_path / "y")) == ["y", "x"]


# -- writing ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["pth", "safetensors", "npz", "pkl"])
def test_what_cannot_be_saved_leaves_the_old_file(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    mf.save({"a": np.ones(2)}, path)
    before = path.read_bytes()
    with pytest.raises(DTypeError, match="'b'"):
        mf.save({"a": np.zeros(2), "b": object()}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    mf.save([1], path)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        mf.save([2], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_names_links_and_permissions(tmp_path):
    umask = os.umask(0o027)
    try:
        mf.save([1], tmp_path / "new.pkl")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new.pkl").stat().st_mode) == 0o640
    (tmp_path / "new.pkl").chmod(0o600)
    (tmp_path / "link.pkl").symlink_to(tmp_path / "new.pkl")
    mf.save([2], tmp_path / "link.pkl")
    assert (tmp_path / "link.pkl").is_symlink()
    assert mf.load(tmp_path / "new.pkl") == [2]
    assert stat.S_IMODE((tmp_path / "new.pkl").stat().st_mode) == 0o600
    folder = tmp_path / "mit Leerzeichen und ü"
    folder.mkdir()
    mf.save([3], str(folder / "x.pth"))
    assert mf.load(folder / "x.pth") == [3]
    with pytest.raises(ArgumentError, match="is a folder"):
        mf.save([1], folder)
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        mf.save([1], tmp_path / "nowhere" / "x.pkl")


def test_arguments():
    with pytest.raises(ArgumentError, match="to must be None or 'numpy', got 'torch'"):
        mf.load("x", to="torch")
    with pytest.raises(ArgumentError, match="is an address; get the file with"):
        mf.load("https://example.org/x.pth")
    with pytest.raises(ArgumentError, match="got int"):
        mf.load(5)
    with pytest.raises(FileNotFoundError):
        mf.load("no-such-file.pth")
    with pytest.raises(ArgumentError, match=r"a \.npz file holds a mapping"):
        mf.save([1], "x.npz")
    with pytest.raises(ArgumentError, match=r"a \.npy file holds one array"):
        mf.save({}, "x.npy")
    with pytest.raises(ArgumentError, match="must be a dictionary"):
        mf.save([1], "x.safetensors")
    with pytest.raises(DTypeError, match=r"\['a'\]\[1\] is a function"):
        mf.save({"a": [1, len.__class__ and (lambda: 0)]}, "x.pkl")
    with pytest.raises(DTypeError, match="elements of type complex128"):
        mf.save({"a": np.array([1j])}, "x.pth")
    endless: list[object] = []
    endless.append(endless)
    for name in ("x.pkl", "x.pth"):
        with pytest.raises(ArgumentError, match="nested more than 200 levels deep, or contains itself"):
            mf.save(endless, name)


# -- modules ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.npz", "w.pkl", "w"])
def test_modules(tmp_path, name):
    mf.set_global_seed(3)
    first, second = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4)) for _ in range(2))
    first.save(tmp_path / name)
    second.load(tmp_path / name)
    second.load_state_dict(mf.load(tmp_path / name))
    for key, value in first.state_dict("numpy").items():
        np.testing.assert_array_equal(second.state_dict("numpy")[key], value)
    assert second[0].weight.requires_grad
    assert not second[1].running_mean.requires_grad


def test_optimizers(tmp_path):
    weight = mf.array(np.ones(3, np.float32))
    optimizer = mf.optim.Adam([weight], 0.1)
    optimizer.step((weight * weight).sum())
    for name in ("o.pkl", "o.pth"):
        mf.save(optimizer.state_dict(), tmp_path / name)
        other = mf.optim.Adam([mf.array(weight.numpy())], 0.5)
        other.load_state_dict(mf.load(tmp_path / name))
        assert other.lr == 0.1
        for slot in ("m", "values"):
            if slot in optimizer.param_groups[0]:
                here, there = (o.param_groups[0][slot][0].numpy() for o in (optimizer, other))
                np.testing.assert_array_equal(here, there)


def test_wrong_names_are_explained(tmp_path):
    net = nn.Linear(2, 3)
    state = net.state_dict("numpy")
    with pytest.raises(ArgumentError, match=r"they are below 'model'; give params\['model'\]"):
        net.load_state_dict({"epoch": 3, "model": state})
    with pytest.raises(ArgumentError, match=r"they begin with 'module\.'"):
        net.load_state_dict({f"module.{k}": v for k, v in state.items()})
    with pytest.raises(ArgumentError, match="it has weight, bias, given are a, b, c and 1 more"):
        net.load_state_dict(dict.fromkeys("abcd", np.ones(1)))
    mf.save([1, 2], tmp_path / "list.pkl")
    with pytest.raises(ArgumentError, match="holds a list, not arrays by names"):
        net.load(tmp_path / "list.pkl")
    one = nn.Module()
    one.scale = mf.array([2.0])
    one.load_state_dict({"scale": np.float32(3)})
    assert one.scale.item() == 3


# -- what can't be saved ---------------------------------------------------------------------------------------
def _refused(tmp_path, value, name, kind=ArgumentError):
    """The message of a refusal, after which the folder is as it was."""
    with pytest.raises(kind, match=r"^\[save\] ") as caught:
        mf.save(value, os.path.join(tmp_path, name))
    assert os.listdir(tmp_path) == []
    return str(caught.value)


@pytest.mark.parametrize("value", [[[1], [1, 2]], {"a": [[1], [1, 2]]}])
def test_ragged_lists_are_refused_where_a_file_holds_arrays(tmp_path, value):
    name = "x.npz" if isinstance(value, dict) else "x.npy"
    assert "differ in length" in _refused(tmp_path, value, name, DTypeError)
    mf.save(value, tmp_path / "x.pkl")
    assert mf.load(tmp_path / "x.pkl") == value


@pytest.mark.parametrize("ending", ["pkl", "pth", "npz", "safetensors"])
def test_arrays_of_objects_are_refused(tmp_path, ending):
    _refused(tmp_path, {"a": np.array([None, 1])}, f"x.{ending}", DTypeError)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800", "a/", "."])
@pytest.mark.parametrize("ending", ["", ".pkl"])
def test_names_that_no_file_has_are_refused(tmp_path, name, ending):
    if ending and name.strip("a") in ("/", "."):
        return  # with an ending they name a file
    _refused(tmp_path, {"a": np.ones(2)}, name + ending)
    with pytest.raises(ArgumentError, match=r"^\[save\] "):
        nn.Linear(1, 1).save(os.path.join(tmp_path, name + ending))
    assert os.listdir(tmp_path) == []


def test_what_is_no_path_is_refused_by_name():
    with pytest.raises(ArgumentError, match=r"^\[save\] a path must be a string or a Path, got int"):
        mf.safepickle(1, 5)
    with pytest.raises(ArgumentError, match=r"path.* got int"):
        nn.Linear(1, 1).save(5)
    with pytest.raises(ArgumentError, match=r"^\[load\] 'a\\x00b' has characters"):
        mf.load("a\0b")


@pytest.mark.parametrize("name", ["", "a\0b", "a\ud800", "a" * 70000, "a::bfloat16"])
def test_names_that_an_archive_does_not_give_back_are_refused(tmp_path, name):
    assert "can't be the name of an array" in _refused(tmp_path, {name: np.ones(2)}, "x.npz")


@pytest.mark.parametrize("name", ["a/b.c", "../ä", "a::weight", ".a", "a\n"])
def test_other_names_come_back(tmp_path, name):
    mf.save({name: np.ones(2)}, tmp_path / "x.npz")
    assert list(mf.load(tmp_path / "x.npz")) == [name]


def test_texts_that_are_no_unicode_are_refused_in_safetensors(tmp_path):
    _refused(tmp_path, {"\udc80": np.ones(2)}, "x.safetensors")


@pytest.mark.parametrize("ending", ["pkl", "pth", "npz", "safetensors"])
def test_tensors_without_values_are_refused(tmp_path, ending):
    torch = pytest.importorskip("torch")
    for tensor in (torch.eye(2).to_sparse(), torch.empty(2, device="meta")):
        message = _refused(tmp_path, {"a": tensor}, f"x.{ending}", DTypeError)
        assert "is a tensor that can't be saved" in message
