"""Files as those data sets have them, made up."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np

RNG = np.random.default_rng(4)


def python2(value):
    """A pickle as Python 2 wrote it: texts and bytes are the same kind, of operations that no later Python writes."""
    if isinstance(value, dict):
        body = b"".join(python2(k) + python2(v) for k, v in value.items())
        return b"}(" + body + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, (str, bytes)):
        raw = value.encode() if isinstance(value, str) else value
        return (b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))) + raw
    if isinstance(value, np.ndarray):
        state = (
            b"(K\x01"
            + b"".join(b"J" + struct.pack("<i", n) for n in value.shape)
            + {1: b"\x85", 2: b"\x86"}[value.ndim]
        )
        dtype = b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
            + state
            + dtype
            + b"\x89"
            + python2(value.tobytes())
            + b"tb"
        )
    return b"J" + struct.pack("<i", value)


def batch(count, labels, name="labels", old=True):
    table = {"data": RNG.integers(0, 256, (count, 3072), np.uint8), name: labels, "batch_label": "x"}
    return (
        b"\x80\x02" + python2(table) + b"."
        if old
        else pickle.dumps({k.encode(): v for k, v in table.items()}, 3)
    )


def cifar_files(old=True):
    files = {f"data_batch_{k}": batch(4, [k, k + 1, 0, 9], old=old) for k in range(1, 6)}
    files["test_batch"] = batch(3, [1, 2, 3], old=old)
    names = ["plane", "car", *"abcdefgh"]
    files["batches.meta"] = b"\x80\x02" + python2({"label_names": names}) + b"."
    return files


def packed(files, folder):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return content.getvalue()


def idx(array):
    return gzip.compress(
        struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )
