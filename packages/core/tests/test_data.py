"""Data sets: batching, order, collating, the MNIST reader and downloads from a local server."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import struct
import threading

import numpy as np
import pytest

import metafuse as mf
from metafuse import data
from metafuse.data.download import fetch
from metafuse.data.idx import read_idx
from metafuse.errors import ArgumentError, DTypeError


class Numbers(data.Dataset):
    def __init__(self, count=10, **options):
        super().__init__()
        self.set_attrs(total_len=count, **options)

    def __getitem__(self, k):
        return np.full((2,), k, np.float32), k


def seen(dataset):
    return [y.numpy().tolist() for _, y in dataset]


def test_batches_in_order():
    assert seen(Numbers(5, batch_size=2)) == [[0, 1], [2, 3], [4]]
    dataset = Numbers(5, batch_size=2, drop_last=True)
    assert seen(dataset) == [[0, 1], [2, 3]]
    assert len(dataset) == 2
    assert len(Numbers(5, batch_size=2)) == 3
    assert Numbers(5, batch_size=2).batch_len == 3
    assert len(Numbers(0)) == 0
    assert seen(Numbers(0)) == []


def test_batches_are_vars_without_gradient():
    x, y = next(iter(Numbers(4, batch_size=4)))
    assert isinstance(x, mf.Var)
    assert (x.shape, x.dtype, y.dtype) == ((4, 2), "float32", "int32")
    assert not x.requires_grad
    x, _ = next(iter(Numbers(4, stop_grad=False)))
    assert x.requires_grad
    x, _ = next(iter(Numbers(4, keep_numpy_array=True)))
    assert isinstance(x, np.ndarray)


def test_shuffle_is_a_new_permutation_each_time_and_repeatable():
    data.set_shuffle_seed(4)
    dataset = Numbers(50, batch_size=50, shuffle=True)
    first, second = seen(dataset)[0], seen(dataset)[0]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second != list(range(50))
    data.set_shuffle_seed(4)
    np.random.seed(0)
    mf.set_global_seed(9)
    assert seen(dataset)[0] == first


def test_endless():
    batches = iter(Numbers(2, batch_size=2, endless=True))
    assert [next(batches)[1].numpy().tolist() for _ in range(3)] == [[0, 1]] * 3


def test_options_are_checked():
    for options, message in (
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"batch_size": 2.5}, "got 2.5"),
        ({"total_len": -1}, "total_len must be an integer >= 0"),
        ({"num_workers": -2}, "num_workers must be an integer >= 0, got -2"),
        ({"batchsize": 2}, "has no attribute 'batchsize'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Numbers().set_attrs(**options)
    with pytest.raises(ArgumentError, match="total_len is not set"):
        len(data.Dataset())


def test_data_loader():
    loader = data.DataLoader(Numbers(5), 4, drop_last=True)
    assert seen(loader) == [[0, 1, 2, 3]]
    with pytest.raises(DTypeError, match="got list"):
        data.DataLoader([1, 2])


def test_tensor_dataset():
    x = np.arange(12).reshape(6, 2).astype(np.float32)
    dataset = data.TensorDataset(x, mf.array(np.arange(6)))
    assert dataset[2][1] == 2
    data.DataLoader(dataset, batch_size=4)
    parts = list(dataset)
    np.testing.assert_array_equal(np.concatenate([a.numpy() for a, _ in parts]), x)
    assert [b.shape for _, b in parts] == [(4,), (2,)]
    with pytest.raises(ArgumentError, match=r"one length, got \[2, 3\]"):
        data.VarDataset(np.zeros(2), np.zeros(3))


def test_collate():
    batch = [
        {"a": (1, 2.0), "b": "x", "c": True, "d": None},
        {"a": (3, 4.0), "b": "y", "c": False, "d": None},
    ]
    found = data.collate_batch(batch)
    np.testing.assert_array_equal(found["a"][0], np.array([1, 3], np.int32))
    assert found["a"][0].dtype == np.int32
    assert found["a"][1].dtype == np.float32
    assert found["c"].dtype == np.bool_
    assert (found["b"], found["d"]) == (["x", "y"], [None, None])
    assert data.collate_batch([mf.ones([2]), mf.ones([2])]).shape == (2, 2)
    with pytest.raises(ArgumentError, match=r"different shapes: \[\(2,\), \(3,\)\]"):
        data.collate_batch([np.zeros(2), np.zeros(3)])
    with pytest.raises(ArgumentError, match="different lengths"):
        data.collate_batch([(1,), (1, 2)])
    with pytest.raises(DTypeError, match="can't stack object"):
        data.collate_batch([object()])


def test_samplers():
    numbers = Numbers(6)
    assert list(data.SequentialSampler(numbers)) == [0, 1, 2, 3, 4, 5]
    assert sorted(data.RandomSampler(numbers)) == [0, 1, 2, 3, 4, 5]
    assert len(list(data.RandomSampler(numbers, num_samples=15))) == 15
    assert set(data.RandomSampler(numbers, replacement=True, num_samples=200)) == set(range(6))
    assert sorted(data.SubsetRandomSampler(numbers, [5, 1])) == [1, 5]
    some = list(data.SubsetRandomSampler(numbers, mf.array([5, 1])))
    assert sorted(some) == [1, 5]
    assert all(type(k) is int for k in some)
    batches = data.BatchSampler(data.SequentialSampler(numbers), 4, drop_last=False)
    assert (list(batches), len(batches)) == ([[0, 1, 2, 3], [4, 5]], 2)
    skipping = data.SkipFirstBatchesSampler(batches, 1)
    assert (list(skipping), len(skipping)) == ([[4, 5]], 1)
    assert seen(numbers.set_attrs(sampler=batches)) == [[0, 1, 2, 3], [4, 5]]
    assert seen(numbers.set_attrs(sampler=data.SubsetRandomSampler(numbers, [3]))) == [[3]]
    with pytest.raises(ArgumentError, match="batch_size"):
        data.BatchSampler(data.SequentialSampler(numbers), 0, False)


# -- MNIST -----------------------------------------------------------------------------------------------------
def idx_bytes(array):
    return (
        struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )


@pytest.fixture
def folder(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28), np.uint8)
    labels = np.arange(7, dtype=np.uint8)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return tmp_path, images, labels


def test_mnist_from_files_placed_by_hand(folder, monkeypatch):
    path, images, _ = folder
    dataset = data.MNIST(str(path), download=False, batch_size=4)
    x, y = next(iter(dataset))
    assert (x.shape, x.dtype, y.dtype) == ((4, 1, 28, 28), "float32", "int32")
    np.testing.assert_allclose(x.numpy()[:, 0], images[:4] / 255.0, rtol=1e-6)
    assert y.numpy().tolist() == [0, 1, 2, 3]
    assert data.MNIST(path, transform=lambda a: a.astype(np.float32).mean())[3][0] == pytest.approx(
        images[3].mean()
    )
    with pytest.raises(data.DownloadError, match="t10k-images-idx3-ubyte.gz is not in"):
        data.MNIST(path, train=False, download=False)
    monkeypatch.setenv("METAFUSE_DATA_DIR", str(path.parent))
    path.rename(path.parent / "mnist")
    assert len(data.MNIST(download=False, batch_size=7)) == 1


def test_damaged_files(folder):
    path, images, _ = folder
    file = path / "x"
    for content, message in (
        (b"\0\0\x08\x01" + struct.pack(">I", 9) + b"abc", "3 bytes of data, 9 expected"),
        (b"hello", "is no IDX file"),
        (gzip.compress(idx_bytes(images))[:200], "is damaged"),
        (b"", "is no IDX file"),
    ):
        file.write_bytes(content)
        with pytest.raises(ArgumentError, match=message):
            read_idx(file)


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "served"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        ranges: list[str | None] = []

        def do_GET(self):
            self.ranges.append(self.headers.get("Range"))
            content = (
                (root / self.path.strip("/")).read_bytes() if (root / self.path.strip("/")).exists() else None
            )
            if content is None:
                self.send_error(404)
                return
            begin = int(self.headers["Range"][6:-1]) if self.headers.get("Range") else 0
            self.send_response(206 if begin else 200)
            self.end_headers()
            self.wfile.write(content[begin:])

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield root, f"http://127.0.0.1:{httpd.server_port}/", Handler.ranges
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_download_resumes_and_checks(server, tmp_path):
    root, url, ranges = server
    content = np.random.default_rng(0).bytes(300_000)
    (root / "file").write_bytes(content)
    (root / "wrong").write_bytes(b"other")
    md5 = hashlib.md5(content).hexdigest()
    target = tmp_path / "deep" / "file"
    target.parent.mkdir()
    (target.parent / "file.part").write_bytes(content[:100_000])
    assert fetch([url + "missing", url + "file"], target, md5).read_bytes() == content
    assert ranges == ["bytes=100000-", "bytes=100000-"]
    assert not (target.parent / "file.part").exists()
    ranges.clear()
    fetch([url + "file"], target, md5)
    assert ranges == []
    with pytest.raises(data.DownloadError) as caught:
        fetch([url + "missing", url + "wrong"], tmp_path / "other", md5)
    text = str(caught.value)
    assert "404" in text
    assert "MD5 sum is wrong" in text
    assert f"put it at {tmp_path / 'other'}" in text
    assert not (tmp_path / "other").exists()


def test_loaders_that_share_data():
    whole = data.TensorDataset(np.arange(6))
    first = data.DataLoader(whole, 2, sampler=data.SubsetRandomSampler(whole, [4]), copy=True)
    second = data.DataLoader(whole, batch_size=3, copy=True)
    assert [len(x) for (x,) in first] == [1]
    assert [x.tolist() for (x,) in second] == [[0, 1, 2], [3, 4, 5]]
    assert (whole.batch_size, whole.sampler) == (16, None)
    assert data.DataLoader(whole, batch_size=4) is whole
