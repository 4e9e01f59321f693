"""Damaged files of safetensors, NumPy and the reference API, and bytes at random: one clear error each."""

from __future__ import annotations

import contextlib
import io as streams
import json
import os
import struct
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metafuse as mf
from io_kit import LEGACY, ZIP, archive, load, unpacked
from metafuse import io
from metafuse.io.files import Budget, FileFormatError, Source
from metafuse.io.pickle_names import plain_names
from metafuse.io.pickle_reader import PickleReader


# -- safetensors -----------------------------------------------------------------------------------------------------
def safetensors(header, data=bytes(8), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(("content", "message"), [
    (safetensors({"a": entry()}, length=2**63), "bytes long"),
    (safetensors({"a": entry()}, length=10**9), "bytes long"),
    (safetensors({"a": entry()})[:4], "no kind"),
    (safetensors({"a": entry()})[:20], "bytes long"),
    (safetensors({"a": entry()}, bytes(7)), "incomplete or damaged"),
    (safetensors({"a": entry()}, bytes(9)), "incomplete or damaged"),
    (safetensors({"a": entry(), "b": entry()}), "begin at 0, not at 8"),
    (safetensors({"a": entry(offsets=(4, 12))}, bytes(12)), "begin at 4, not at 0"),
    (safetensors({"a": entry(shape=(3,))}), "takes 12 bytes"),
    (safetensors({"a": entry(shape=(2**40, 2**40))}), "takes"),
    (safetensors({"a": entry(shape=(-2,))}), "natural"),
    (safetensors({"a": entry(shape=(True, 2))}), "natural"),
    (safetensors({"a": entry(shape=(2.0,))}), "natural"),
    (safetensors({"a": entry(offsets=(8, 0))}), "takes"),
    (safetensors({"a": entry(offsets=(0, 8, 9))}), "offsets"),
    (safetensors({"a": entry(shape=(1,) * 80)}), "dimensions"),
    (safetensors({"a": entry("F8_E4M3")}), "F8_E4M3"),
    (safetensors({"a": entry("__import__('os')")}), "no Var can have"),
    (safetensors({"a": 5}), "not described"),
    (safetensors({"a": {**entry(), "more": 1}}), "not described"),
    (safetensors(b'{"a":1,"a":2}'), "name twice"),
    (safetensors(b'{"a":[['), "no JSON"),
    (safetensors(b'{"a":' + b"[" * 100_000), "no JSON|deep"),
    (safetensors(b'{"a":\xff\xff}'), "no JSON"),
    (safetensors(b'{"a":' + b"9" * 5000 + b"}"), "no JSON"),
])  # fmt: skip
def test_damaged_safetensors(content, message):
    with pytest.raises(FileFormatError, match=message):
        load(content)


def test_bytes_that_are_no_truth_values_count_as_true():
    found = load(safetensors({"a": entry("BOOL", (8,))}, bytes([0, 1, 2, 255, 0, 0, 128, 1])))
    assert found["a"].numpy().tolist() == [False, True, True, True, False, False, True, True]


# -- NumPy -----------------------------------------------------------------------------------------------------------
def npy(header, data=bytes(24), version=b"\x01\x00"):
    text = repr(header) if isinstance(header, dict) else header
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode() + data


HEADER = {"descr": "<f8", "fortran_order": False, "shape": (3,)}


@pytest.mark.parametrize(("content", "message"), [
    (npy({**HEADER, "shape": (4,)}), "24 bytes of data"),
    (npy({**HEADER, "shape": (10**15,)}), "24 bytes of data"),
    (npy({**HEADER, "shape": (-3,)}), "header"),
    (npy({**HEADER, "shape": (1,) * 70}), "70 dimensions"),
    (npy(repr(HEADER).replace("3", "3" * 5000)), "damaged|no array|bytes of data"),
    (npy("-" * 9000 + "1"), "header"),
    (npy({**HEADER, "descr": "|O"}), "objects are not"),
    (npy({**HEADER, "descr": [("a", "<f4"), ("b", "|O")]}), "header"),
    (npy("__import__('os').system('ls')"), "header"),
    (npy("{" * 3000), "header"),
    (npy(HEADER, version=b"\x09\x00"), "format 1.0 or 2.0"),
    (npy({**HEADER, "more": 1}), "header"),
    (npy(HEADER)[:20], "header"),
])  # fmt: skip
def test_damaged_numpy_files(content, message):
    with pytest.raises(FileFormatError, match=message):
        load(content)
    with pytest.raises(FileFormatError, match=message):
        load(archive([("a.npy", content)]))


def test_damaged_archives_of_numpy(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=np.arange(1000.0))
    good = (tmp_path / "x.npz").read_bytes()
    for cut in range(0, len(good) - 1, 97):
        with pytest.raises(FileFormatError):
            load(good[:cut])
    at = len(good) // 2
    with pytest.raises(FileFormatError):
        load(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
    with pytest.raises(FileFormatError, match="no array, or there twice"):
        load(archive([("a.npy", npy(HEADER)), ("b.txt", b"x")]))
    with pytest.raises(FileFormatError, match="elements of float64"):
        load(archive([("a::bfloat16.npy", npy(HEADER))]))


def test_an_archive_that_unfolds_to_more_than_memory(monkeypatch):
    monkeypatch.setattr("metafuse.io.files.memory_of_machine", lambda: 10_000)
    file = streams.BytesIO()
    np.savez_compressed(file, a=np.zeros(1000), b=np.zeros(1000))
    with pytest.raises(FileFormatError, match="more than this machine's memory"):
        load(file.getvalue())


def test_the_sum_of_the_reference_apis_format(tmp_path):
    mf.save({"a": np.arange(3)}, tmp_path / "x.pkl")
    good = (tmp_path / "x.pkl").read_bytes()
    with pytest.raises(FileFormatError, match="SHA-1 sum is wrong"):
        load(good[:20] + b"\0" + good[21:])
    with pytest.raises(FileFormatError, match="SHA-1 sum is wrong"):
        load(good[10:])


# -- any bytes at all -------------------------------------------------------------------------------------------------
def _samples():
    state = {"w": mf.array(np.arange(6.0).reshape(2, 3)), "b": mf.array(np.arange(2), "bfloat16")}
    found = [unpacked(ZIP), unpacked(LEGACY)]
    for save in (io.save_safetensors, io.save_numpy, io.save_pickle, lambda v, p: io.save_pytorch(p, v)):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x")
            save(state, path)
            with open(path, "rb") as file:
                found.append(file.read())
    return found


SAMPLES = _samples()


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_mutated_files_load_or_are_refused(data):
    content = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content)))
        kind = data.draw(st.integers(0, 3))
        if kind == 0:
            content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
        elif kind == 1:
            content[at:at] = data.draw(st.binary(max_size=9))
        elif kind == 2:
            del content[at : at + data.draw(st.integers(1, 40))]
        else:
            other = data.draw(st.integers(0, len(content)))
            content[at : at + 8] = content[other : other + 8]
    with contextlib.suppress(FileFormatError):  # and nothing else
        load(bytes(content))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [bytes([k]) for k in range(256)]
            + [b"cbuiltins\nset\n", b"cnumpy\ndtype\n", b"K\x01", b"X\x02\0\0\0f4"]
        ),
        max_size=40,
    )
)
def test_random_programs_of_the_pickle_machine(parts):
    source = Source(streams.BytesIO(b"\x80\x04" + b"".join(parts) + b"."), "x")
    with io.files.reading(streams.BytesIO(b"")):
        try:
            PickleReader(source, plain_names(Budget(source))).load()
        except (FileFormatError, UnicodeError):
            pass
