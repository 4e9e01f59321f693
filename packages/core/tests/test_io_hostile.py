"""Files that lie: nothing in them is executed, and each gives one clear error."""

from __future__ import annotations

import io as streams
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from io_kit import LEGACY, ZIP, archive, load, unpacked
from metafuse import io
from metafuse.io.files import Budget, FileFormatError, Source
from metafuse.io.pickle_names import plain_names
from metafuse.io.pickle_reader import Function
from metafuse.io.pytorch_names import pytorch_names


class Call:
    """Pickles to a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


MARKER = []


def execute(*arguments):
    MARKER.append(arguments)


@pytest.mark.parametrize(
    "function", [os.system, exec, eval, subprocess.Popen, getattr, execute, __import__, open]
)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_calls_are_refused_and_not_executed(tmp_path, function, protocol):
    victim = tmp_path / "touched"
    content = pickle.dumps({"a": [1, Call(function, f"touch {victim}")]}, protocol)
    name = function.__name__
    for wrapped in (content, archive([("x/data.pkl", content), ("x/version", b"3\n")])):
        with pytest.raises(FileFormatError, match=rf"{name}.*Nothing has been executed"):
            load(wrapped)
    assert not victim.exists()
    assert MARKER == []


@pytest.mark.parametrize("content", [
    b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.",
    b"\x80\x02(X\x02\x00\x00\x00lsios\nsystem\n.",  # INST
    b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00lso.",  # OBJ
    b"\x80\x02\x82\x01.",  # EXT1
    b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
    b"\x80\x05\x97.",  # NEXT_BUFFER
])  # fmt: skip
def test_operations_that_make_objects_are_refused(content):
    with pytest.raises(FileFormatError):
        load(content)


def test_every_name_of_the_tables_is_inert():
    """No name stands for anything that could import, open or run something: all callables are ours."""
    source = Source(streams.BytesIO(b""), "x")
    for name, value in {**plain_names(Budget(source)), **pytorch_names(Budget(source), None)}.items():
        if isinstance(value, Function):
            assert value.call.__module__.startswith("metafuse.io."), name
        else:
            assert not callable(value), name


@pytest.mark.parametrize(("content", "message"), [
    (b"", "begins with nothing"),
    (b"hello world", "no kind that is read"),
    (b"\x80\x02", "incomplete"),
    (b"\x80\x09.", "protocol 9"),
    (b"\x80\x02.", "not there"),
    (b"\x80\x02NN.", "left over"),
    (b"\x80\x02h\x05.", "before it exists"),
    (b"\x80\x02t.", "mark is missing"),
    (b"\x80\x02(.", "mark stands where"),
    (b"\x80\x02NNs.", "can't hold"),
    (b"\x80\x02}]Ns.", "a list is used as a key"),
    (b"\x80\x02})" + b"\x85" * 40 + b"Ns.", "a tuple is used as a key"),
    (b"\x80\x02}(NNNu.", "no value"),
    (b"\x80\x02NR.", "can't be"),
    (b"\x80\x02N)R.", "can't be"),
    (b"\x80\x02NNb.", "has none"),
    (b"\x80\x02q\x01.", "nothing is there"),
    (b"\x80\x02X\xff\xff\xff\xffabc.", "incomplete"),
    (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "incomplete"),
    (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", "frame is longer"),
    (b"\x80\x02\x8b\xff\xff\xff\x7f.", "incomplete"),
    (b"\x80\x02c" + b"a" * 5000, "name does not end"),
    (b"\x80\x02c\xff\xfe\nx\n.", "damaged"),
    (b"\x80\x04NN\x93.", "name is not a text"),
    (b"\x80\x02Nr\xff\xff\xff\xff.", None),  # a memo index of four billion takes no memory
    (b"\x80\x02NQ.", "outside of the pickle"),
    (b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R.", "elements 'O8'"),
    (b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R.", "shell stands where"),
    (b"\x80\x04cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "not made of bytes"),
    (b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b"cbuiltins\ncomplex\n\x8a\xff" + b"\x7f" * 255 + b"\x85R.", "damaged"),
])  # fmt: skip
def test_damaged_pickles(content, message):
    if message is None:
        assert load(content) is None
        return
    with pytest.raises(FileFormatError, match=message):
        load(content)


def numpy_pickle(**changes):
    parts = {"data": np.arange(6.0).tobytes(), "shape": (2, 3), "code": "f8", "order": "<", **changes}
    names = plain_names(Budget(Source(streams.BytesIO(b""), "x")))
    dtype = names["numpy dtype"].call(parts["code"]).fill((3, parts["order"]))
    return (
        names["numpy.core.multiarray _reconstruct"]
        .call("numpy.ndarray")
        .fill((1, parts["shape"], dtype, False, parts["data"]))
    )


@pytest.mark.parametrize("changes", [
    {"shape": (2, 4)}, {"shape": (-2, -3)}, {"shape": (2**62, 4)}, {"shape": (2.0, 3)}, {"shape": [2, 3]}, {"shape": (1,) * 40},
    {"code": "O8"}, {"code": "V8"}, {"code": "f8,f8"}, {"code": "f7"}, {"code": 8}, {"code": "M8"}, {"code": "f99999999999"},
    {"order": "@"}, {"order": 1}, {"data": [1.0]}, {"data": "ü€"}, {"data": b""}, {"code": "U2", "data": b"\xff" * 48},
])  # fmt: skip
def test_damaged_arrays_of_pickles(changes):
    assert numpy_pickle().shape == (2, 3)
    with pytest.raises((ValueError, TypeError)):
        numpy_pickle(**changes)


def test_nesting_and_repetition_take_no_time_and_no_stack():
    deep = load(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")
    for _ in range(199_999):
        (deep,) = deep
    assert deep == []
    laughs = b"\x80\x02]q\x00" + b"".join(b"h\x00h\x00\x86q\x000" for _ in range(200)) + b"0h\x00."
    assert isinstance(load(laughs), tuple)
    with pytest.raises(FileFormatError, match="a tuple is used as a key"):
        load(laughs[:-1] + b"q\x010}h\x01Ns.")


# -- archives of PyTorch -------------------------------------------------------------------------------------------
def tensor_pickle(
    kind="torch FloatStorage",
    key="0",
    count=4,
    offset=0,
    size=(2, 2),
    stride=(2, 1),
    version=2,
    rest=b"\x89ccollections\nOrderedDict\n)R",
):
    """The pickle of one tensor with these numbers, as PyTorch writes it."""

    def put(value):
        return pickle.dumps(value, 2)[2:-1]

    names = kind.replace(" ", "\n").encode()
    identity = b"(" + put("storage") + b"c" + names + b"\n" + put(key) + put("cpu") + put(count) + b"tQ"
    body = identity + put(offset) + put(size) + put(stride) + rest
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v" + str(version).encode() + b"\n(" + body + b"tR."


def tensor_file(content=bytes(16), entries=(), **changes):
    return archive(
        [
            ("m/data.pkl", tensor_pickle(**changes)),
            ("m/byteorder", b"little"),
            ("m/data/0", content),
            *entries,
        ]
    )


def test_a_crafted_tensor_reads():
    found = load(tensor_file(np.arange(4, dtype="<f4").tobytes(), stride=(1, 2)))
    assert found.numpy().tolist() == [[0, 2], [1, 3]]
    big = archive(
        [
            ("m/data.pkl", tensor_pickle()),
            ("m/byteorder", b"big"),
            ("m/data/0", np.arange(4, dtype=">f4").tobytes()),
        ]
    )
    assert load(big).numpy().tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(("changes", "message"), [
    ({"size": (2, 3)}, "reaches beyond"),
    ({"offset": 1}, "reaches beyond"),
    ({"offset": -1}, "negative"),
    ({"offset": 2**70}, "reaches beyond"),
    ({"stride": (-2, 1)}, "negative"),
    ({"stride": (2**62, 1)}, "reaches beyond"),
    ({"size": (2, -2)}, "negative"),
    ({"size": (2,)}, "damaged"),
    ({"size": (2, "2")}, "damaged"),
    ({"size": (True, 2)}, "damaged"),
    ({"size": (1,) * 70, "stride": (1,) * 70}, "damaged"),
    ({"size": (2**40, 2**20), "stride": (0, 0)}, "more than this machine's memory"),
    ({"size": (2**3000, 2), "stride": (0, 0)}, "damaged|memory"),
    ({"size": (0, 2), "offset": 9}, "reaches beyond"),
    ({"count": 5}, "16 bytes, its tensors say 20"),
    ({"count": -4}, "negative length"),
    ({"count": 10**12}, "its tensors say"),
    ({"key": "1"}, "'m/data/1' is missing"),
    ({"key": "../../etc/passwd"}, "is missing"),
    ({"key": 0}, "no key"),
    ({"kind": "torch ComplexFloatStorage"}, r"complex tensors.*view_as_real"),
    ({"kind": "torch QInt8Storage"}, r"QInt8.*dequantize"),
    ({"kind": "torch float32"}, "not described"),
    ({"kind": "torch.nn Linear"}, r"torch\.nn\.Linear"),
    ({"version": 3}, "no element type"),
    ({"rest": b"\x89)ctorch\nfloat8_e4m3fn\n", "version": 3}, r"float8_e4m3fn.*tensor\.float\(\)"),
    ({"rest": b"K\x01)"}, "gradient"),
    ({"rest": b""}, "damaged"),
])  # fmt: skip
def test_tensors_that_lie(changes, message):
    with pytest.raises(FileFormatError, match=message):
        load(tensor_file(**changes))


def test_archives_that_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = tensor_file()
    with pytest.raises(FileFormatError, match="checksum"):
        at = good.index(bytes(16))
        load(good[:at] + b"\1" + good[at + 1 :])
    with pytest.raises(FileFormatError, match="compressed"):
        load(archive([("m/data.pkl", tensor_pickle()), ("m/data/0", bytes(16))], zipfile.ZIP_DEFLATED))
    with pytest.warns(UserWarning, match="Duplicate"), pytest.raises(FileFormatError, match="same name"):
        load(tensor_file(entries=[("m/data/0", b"x")]))
    with pytest.raises(FileFormatError, match=r"data\.pkl is missing"):
        load(archive([("data.pkl", tensor_pickle())]))
    with pytest.raises(FileFormatError, match=r"data\.pkl is missing"):
        load(tensor_file(entries=[("n/data.pkl", b"N.")]))
    with pytest.raises(FileFormatError, match="TorchScript"):
        load(tensor_file(entries=[("m/constants.pkl", b"")]))
    with pytest.raises(FileFormatError, match="least byte"):
        load(archive([("m/data.pkl", tensor_pickle()), ("m/byteorder", b"middle"), ("m/data/0", bytes(16))]))
    tricks = [
        ("../../outside", b"x"),
        ("/etc/outside", b"x"),
        ("m/../../outside", b"x"),
        ("C:\\outside", b"x"),
    ]
    assert load(tensor_file(entries=tricks)).shape == (2, 2)
    assert list(tmp_path.iterdir()) == []
    for cut in range(0, len(good), 7):
        with pytest.raises(FileFormatError):
            load(good[:cut])


def test_overlapping_entries():
    good = bytearray(tensor_file(entries=[("m/data/1", bytes(16))]))
    places = [k for k in range(len(good)) if good[k : k + 4] == b"PK\x01\x02"]
    first, second = (
        next(p for p in places if good[p + 46 :].startswith(f"m/data/{k}".encode())) for k in (0, 1)
    )
    good[second + 42 : second + 46] = good[first + 42 : first + 46]
    with pytest.raises(FileFormatError, match="overlap"):
        load(bytes(good))
    good[second + 42 : second + 46] = struct.pack("<I", 1 << 30)
    with pytest.raises(FileFormatError, match=r"outside|incomplete|damaged"):
        load(bytes(good))


def test_damaged_legacy_files():
    good = unpacked(LEGACY)
    for cut in range(0, len(good), 11):
        with pytest.raises(FileFormatError):
            load(good[:cut])
    with pytest.raises(FileFormatError, match="another length"):
        load(good.replace(struct.pack("<q", 6) + bytes(4), struct.pack("<q", 7) + bytes(4)))
    with pytest.raises(FileFormatError, match="version 1002"):
        load(good.replace(b"M\xe9\x03.", b"M\xea\x03."))
    with pytest.raises(FileFormatError, match="tar archive"):
        io.load_pytorch(streams.BytesIO(bytes(257) + b"ustar" + bytes(300)))
    with pytest.raises(FileFormatError, match=r"no file of torch\.save"):
        io.load_pytorch(streams.BytesIO(b"nothing"))


def test_nothing_is_imported_and_nothing_runs():
    """Loading real files imports neither torch nor anything a file names, and starts no process."""
    code = f"""
import io, sys
import metafuse as mf
seen = []
watched = ("subprocess.Popen", "os.system", "os.exec", "pickle.find_class", "compile")
sys.addaudithook(lambda event, args: seen.append(event) if event in watched else None)
files = {(unpacked(ZIP), unpacked(LEGACY))!r}
for time in range(2):  # the first time modules of metafuse are imported
    del seen[:]
    for content in files:
        mf.load(io.BytesIO(content), to="numpy")
print(seen, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["[]", "False"]
