"""Data sets over files, downloads from a local server, archives: placed by hand, damaged, interrupted."""

from __future__ import annotations

import doctest
import gzip
import hashlib
import http.server
import importlib
import io
import pickle
import struct
import tarfile
import threading
import zipfile

import numpy as np
import pytest

import metafuse as mf
from metafuse import data
from metafuse import transform as T
from metafuse.data import cifar as cifar_module
from metafuse.data import mnist as mnist_module
from metafuse.data.download import DownloadError, Progress, fetch
from metafuse.errors import ArgumentError
from metafuse.io import FileFormatError

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("module", ["collate", "dataset", "utils", "sampler"])
def test_examples(module):
    found = doctest.testmod(
        importlib.import_module(f"metafuse.data.{module}"),
        extraglobs={"mf": mf},
        optionflags=doctest.NORMALIZE_WHITESPACE,
    )
    assert found.failed == 0


# -- CIFAR -------------------------------------------------------------------------------------------------------------
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


@pytest.mark.parametrize("old", [True, False], ids=["python2", "python3"])
@pytest.mark.parametrize("place", ["folder", "flat", "archive"])
def test_cifar10_by_hand(tmp_path, place, old):
    files = cifar_files(old)
    if place == "archive":
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(packed(files, "cifar-10-batches-py"))
    else:
        folder = tmp_path / "cifar-10-batches-py" if place == "folder" else tmp_path
        folder.mkdir(exist_ok=True)
        for name, raw in files.items():
            (folder / name).write_bytes(raw)
    dataset = data.CIFAR10(tmp_path, download=False).set_attrs(batch_size=4)
    assert (len(dataset), dataset.total_len, dataset.data.shape) == (5, 20, (20, 32, 32, 3))
    assert dataset.targets[:8] == [1, 2, 0, 9, 2, 3, 0, 9]
    assert dataset.classes[:2] == ["plane", "car"]
    assert dataset.class_to_idx["car"] == 1
    assert "Train" in dataset.extra_repr()
    assert "CIFAR10(Split: Train, 20 images" in repr(dataset)
    x, y = next(iter(dataset))
    assert (x.shape, x.dtype, y.numpy().tolist()) == ((4, 3, 32, 32), "float32", [1, 2, 0, 9])
    np.testing.assert_allclose(x.numpy()[1].transpose(1, 2, 0), dataset.data[1] / 255.0, rtol=1e-6)
    test = data.CIFAR10(tmp_path, train=False, download=False, target_transform=lambda t: -t)
    assert [test[k][1] for k in range(3)] == [-1, -2, -3]


def test_cifar10_transform_gets_an_image_of_pillows(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(packed(cifar_files(), "cifar-10-batches-py"))
    dataset = data.CIFAR10(tmp_path, download=False, transform=lambda image: image)
    assert isinstance(dataset[0][0], Image.Image)
    np.testing.assert_array_equal(np.asarray(dataset[0][0]), dataset.data[0])
    dataset = data.CIFAR10(
        tmp_path, transform=T.Compose([T.RandomCrop(32, 4), T.ToTensor(), T.ImageNormalize(0.5, 0.5)])
    )
    for x, _ in dataset.set_attrs(batch_size=10, num_workers=1):
        assert (x.shape, x.dtype) == ((10, 3, 32, 32), "float32")
    dataset.terminate()


def test_cifar100(tmp_path):
    files = {
        "train": batch(5, [99, 0, 1, 2, 3], "fine_labels"), "test": batch(2, [5, 6], "fine_labels"),
        "meta": b"\x80\x02" + python2({"fine_label_names": ["x", "y"]}) + b".",
    }  # fmt: skip
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(packed(files, "cifar-100-python"))
    assert data.CIFAR100(tmp_path).targets == [99, 0, 1, 2, 3]
    assert data.CIFAR100(tmp_path, train=False).targets == [5, 6]
    with pytest.raises(
        DownloadError, match=r"\[CIFAR100\] cifar-100-python or cifar-100-python.tar.gz is not in .*nowhere"
    ):
        data.CIFAR100(tmp_path / "nowhere", download=False)


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_damaged_cifar(tmp_path, capsys):
    files = cifar_files()
    archive = tmp_path / "cifar-10-python.tar.gz"
    for change, message in (
        ({"data_batch_3": pickle.dumps(Evil(), 2)}, "print.*Nothing has been executed"),
        ({"data_batch_3": batch(4, [1])}, "does not hold images and labels"),
        ({"data_batch_3": files["data_batch_3"][:5000]}, "incomplete"),
        ({"batches.meta": b"\x80\x02]."}, "holds no table"),
    ):
        archive.write_bytes(packed({**files, **change}, "cifar-10-batches-py"))
        with pytest.raises(ArgumentError, match=message):
            data.CIFAR10(tmp_path)
    assert "executed" not in capsys.readouterr().out
    assert issubclass(FileFormatError, ArgumentError)
    archive.write_bytes(packed(files, "x")[:3000])
    with pytest.raises(ArgumentError, match="is damaged.*remove it"):
        data.CIFAR10(tmp_path)


# -- EMNIST ------------------------------------------------------------------------------------------------------------
def idx(array):
    return gzip.compress(
        struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )


def emnist_files():
    images = RNG.integers(0, 256, (6, 28, 28), np.uint8)
    return images, {
        "emnist-letters-train-images-idx3-ubyte.gz": idx(images),
        "emnist-letters-train-labels-idx1-ubyte.gz": idx(np.arange(1, 7, dtype=np.uint8)),
    }


def test_emnist(tmp_path):
    images, files = emnist_files()
    with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as archive:
        for name, raw in files.items():
            archive.writestr(f"gzip/{name}", raw)
    dataset = data.EMNIST(tmp_path, "letters", download=False, batch_size=6)
    x, y = next(iter(dataset))
    np.testing.assert_allclose(x.numpy()[:, 0], images / 255.0, rtol=1e-6)
    assert y.numpy().tolist() == [1, 2, 3, 4, 5, 6]
    folder = tmp_path / "by hand" / "gzip"
    folder.mkdir(parents=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    np.testing.assert_array_equal(data.EMNIST(folder.parent, "letters", download=False).images, images)
    np.testing.assert_array_equal(data.EMNIST(folder, "letters", transform=lambda a: a.T)[2][0], images[2].T)
    with pytest.raises(ArgumentError, match="split must be one of byclass.*got 'digit'"):
        data.EMNIST(tmp_path, "digit")
    with pytest.raises(ArgumentError, match=r"emnist-letters-test-images-idx3-ubyte.gz is not in .*gzip.zip"):
        data.EMNIST(tmp_path, "letters", train=False)
    with pytest.raises(DownloadError, match="or gzip.zip is not in"):
        data.EMNIST(tmp_path / "nowhere", download=False)
    (tmp_path / "gzip.zip").write_bytes(b"PK no")
    with pytest.raises(ArgumentError, match="damaged"):
        data.EMNIST(tmp_path, "letters")


# -- images --------------------------------------------------------------------------------------------------------------
def test_image_folder(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    for name, colour in (("b/2.png", 20), ("b/deep/1.JPG", 30), ("a/x.png", 10)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L" if "x" in name else "RGB", (6, 4), colour if "x" in name else (colour, 0, 0)).save(
            tmp_path / name
        )
    (tmp_path / "b" / "note.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    dataset = data.ImageFolder(tmp_path)
    assert (dataset.classes, dataset.class_to_idx) == (["a", "b", "empty"], {"a": 0, "b": 1, "empty": 2})
    assert [(p[len(str(tmp_path)) + 1 :], k) for p, k in dataset.imgs] == [
        ("a/x.png", 0),
        ("b/2.png", 1),
        ("b/deep/1.JPG", 1),
    ]
    assert dataset[0][0].mode == "RGB"
    x, y = next(iter(dataset))
    assert (x.shape, x.dtype, y.numpy().tolist()) == ((3, 4, 6, 3), "uint8", [0, 1, 1])
    dataset = data.ImageFolder(tmp_path, T.Compose([T.Resize(3), T.ToTensor()])).set_attrs(
        num_workers=2, batch_size=1
    )
    assert [x.shape for x, _ in dataset] == [(1, 3, 3, 3)] * 3
    dataset.terminate()
    (tmp_path / "a" / "x.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(ArgumentError, match=r"\[ImageFolder\] '.*x.png' can't be read as an image"):
        data.ImageFolder(tmp_path)[0]
    with pytest.raises(ArgumentError, match="is no folder"):
        data.ImageFolder(tmp_path / "nothing")
    with pytest.raises(ArgumentError, match="<class>/<name>.jpg"):
        data.ImageFolder(tmp_path / "b" / "deep")


def test_voc(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (root / name).mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("one\ntwo\n")
    mask = np.zeros((20, 30), np.uint8)
    mask[:, 15:] = 15
    mask[0] = 255
    for name in ("one", "two"):
        Image.new("RGB", (30, 20), (10, 20, 30)).save(root / "JPEGImages" / f"{name}.jpg")
        palette = Image.fromarray(mask).convert("P")
        palette.putdata(mask.ravel().tolist())
        palette.save(root / "SegmentationClass" / f"{name}.png")
    x, y = next(iter(data.VOC(tmp_path, size=(10, 12))))
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((2, 3, 10, 12), "float32", (2, 10, 12), "int32")
    np.testing.assert_allclose(x.numpy()[0, :, 5, 5], [10, 20, 30], atol=3)
    assert set(np.unique(y.numpy())) <= {0, 15, 255}
    image, classes = data.VOC(root, size=None)[1]
    assert image.shape == (3, 20, 30)
    np.testing.assert_array_equal(classes, mask)
    assert data.VOC(tmp_path)[0][0].shape == (3, 513, 513)
    assert data.VOC.NUM_CLASSES == 21
    with pytest.raises(ArgumentError, match="split must be one of train, got 'val'"):
        data.VOC(tmp_path, "val")
    with pytest.raises(DownloadError, match="VOCtrainval_11-May-2012.tar"):
        data.VOC(tmp_path / "nowhere")


# -- downloads -----------------------------------------------------------------------------------------------------------
CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        begin = int(self.headers["Range"][6:-1]) if self.headers.get("Range") and server.ranges else 0
        if begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header(
                "Content-Range", f"bytes {begin + server.shift}-{len(content) - 1}/{len(content)}"
            )
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        until = begin + server.breaks.pop(0) if server.breaks else len(content)
        self.wfile.write(content[begin:until])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.files, httpd.asked, httpd.breaks, httpd.ranges, httpd.shift = {"/file": CONTENT}, [], [], True, 0
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_connection_that_breaks_is_taken_up_again(server, tmp_path):
    server.breaks = [100_000, 50_000]
    assert fetch([server.url + "/file"], tmp_path / "x", MD5).read_bytes() == CONTENT
    assert [r for _, r in server.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_came_is_kept_for_the_next_time(server, tmp_path):
    server.breaks = [100_000] + [0] * 9
    with pytest.raises(
        DownloadError, match=r"the connection ended after 100000 of 300000 bytes\. Get it elsewhere \(MD5"
    ):
        fetch([server.url + "/file"], tmp_path / "x", MD5)
    assert (tmp_path / "x.part").stat().st_size == 100_000
    server.breaks = []
    server.asked.clear()
    fetch([server.url + "/file"], tmp_path / "x", MD5)
    assert server.asked == [("/file", "bytes=100000-")]


def test_servers_without_ranges_and_with_wrong_ones(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert fetch([server.url + "/file"], tmp_path / "x", MD5).read_bytes() == CONTENT
    (tmp_path / "y.part").write_bytes(CONTENT[:1000])
    server.ranges, server.shift = True, 5
    with pytest.raises(DownloadError, match="asked for byte 1000 and later, got byte 1005"):
        fetch([server.url + "/file"], tmp_path / "y", MD5)
    (tmp_path / "z.part").write_bytes(CONTENT)
    server.shift = 0
    assert fetch([server.url + "/file"], tmp_path / "z", MD5).read_bytes() == CONTENT
    (tmp_path / "w.part").write_bytes(b"something else")  # as long as it is, the file cannot be right
    with pytest.raises(DownloadError, match="MD5 sum is wrong"):
        fetch([server.url + "/file"], tmp_path / "w", MD5)
    assert not (tmp_path / "w.part").exists()
    fetch([server.url + "/file"], tmp_path / "w", MD5)


def test_sums(server, tmp_path):
    sha = hashlib.sha256(CONTENT).hexdigest()
    assert fetch([server.url + "/file"], tmp_path / "x", sha).is_file()
    with pytest.raises(DownloadError, match="SHA-256 sum is wrong"):
        fetch([server.url + "/file"], tmp_path / "y", "0" * 64)
    with pytest.raises(ArgumentError, match="32 .MD5. or 64 .SHA-256. hexadecimal digits, got 'abc'"):
        fetch([server.url + "/file"], tmp_path / "y", "abc")
    assert (
        data.calculate_md5(tmp_path / "x") == MD5 == data.calculate_md5(str(tmp_path / "x"), chunk_size=100)
    )
    assert data.check_md5(tmp_path / "x", MD5.upper())
    assert data.check_integrity(tmp_path / "x")
    assert data.check_integrity(tmp_path / "x", MD5)
    assert not data.check_integrity(tmp_path / "x", "0" * 32)
    assert not data.check_file_exist(tmp_path / "y", MD5)


def test_several_want_one_file(server, tmp_path):
    threads = [
        threading.Thread(target=fetch, args=([server.url + "/file"], tmp_path / "x", MD5)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_download_url_to_local(server, tmp_path):
    data.download_url_to_local(server.url + "/file?a=1".partition("?")[0], None, tmp_path / "deep", MD5)
    assert (tmp_path / "deep" / "file").read_bytes() == CONTENT
    data.download_url_to_local(server.url + "/file", "other", str(tmp_path))
    assert len(server.asked) == 2
    data.download_url_to_local("http://127.0.0.1:9/gone", "other", str(tmp_path))  # it is there
    with pytest.raises(ArgumentError, match="a name without folders, got '../x'"):
        data.download_url_to_local(server.url + "/file", "../x", tmp_path)
    with pytest.raises(DownloadError, match="refused"):
        data.download_url_to_local("http://127.0.0.1:9/gone", "new", tmp_path)
    with pytest.raises(DownloadError, match=r"unknown url type: nonsense"):
        data.download_url_to_local("nonsense:x/y", "new", tmp_path)


def test_data_sets_download(server, tmp_path, monkeypatch):
    images, labels = RNG.integers(0, 256, (5, 28, 28), np.uint8), np.arange(5, dtype=np.uint8)
    files = {"t10k-images-idx3-ubyte.gz": idx(images), "t10k-labels-idx1-ubyte.gz": idx(labels)}
    archive = packed(cifar_files(), "cifar-10-batches-py")
    server.files = {**{f"/{n}": c for n, c in files.items()}, "/cifar-10-python.tar.gz": archive}
    monkeypatch.setattr(mnist_module, "_MIRRORS", (server.url + "/none/", server.url + "/"))
    monkeypatch.setattr(mnist_module, "_MD5", {n: hashlib.md5(c).hexdigest() for n, c in files.items()})
    dataset = data.MNIST(tmp_path / "m", train=False)
    np.testing.assert_array_equal(dataset.images, images)
    server.asked.clear()
    dataset.download_url()  # everything is there
    assert server.asked == []
    monkeypatch.setattr(data.CIFAR10, "_md5", hashlib.md5(archive).hexdigest())
    original = cifar_module.downloads.fetch
    monkeypatch.setattr(
        cifar_module.downloads,
        "fetch",
        lambda urls, *rest: original([f"{server.url}/{u.rpartition('/')[2]}" for u in urls], *rest),
    )
    assert data.CIFAR10(tmp_path / "c").total_len == 20


def test_progress(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    clock = [0.0]
    monkeypatch.setattr("metafuse.data.download.time.monotonic", lambda: clock[0])
    for file, lines in ((Terminal(), 3), (io.StringIO(), 1)):
        clock[0] = 0.0
        with Progress("file", 2_000_000, file) as progress:
            for done in (0, 500_000, 2_000_000):
                clock[0] += 1
                progress.show(done)
        text = file.getvalue()
        assert text.count("\r") + text.count("\n") == (lines + 2 if lines > 1 else 1)
        assert "file [####################] 100% of 2.0 MB, 666.7 kB/s" in text
    assert "[#####...............]  25%" in progress_text(clock)
    file = Terminal()
    with mf.flag_scope(log_silent=1), Progress("file", None, file) as progress:
        clock[0] += 1
        progress.show(100)
    assert file.getvalue() == ""
    assert Progress("x", None).line(1.0).startswith("x 0 B")


def progress_text(clock):
    progress = Progress("file", 2_000_000, io.StringIO())
    progress.show(500_000)
    return progress.line(clock[0] + 1)


# -- archives ------------------------------------------------------------------------------------------------------------
def tar_of(entries, mode="w:gz"):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            info = tarfile.TarInfo(entry)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    return content.getvalue()


def test_extract_archives(tmp_path):
    for k, mode in enumerate(("w", "w:gz", "w:bz2", "w:xz")):
        (tmp_path / "archive").write_bytes(tar_of(["a/b.txt", "c.txt", "./d/./e.txt"], mode))
        data.extract_archive(tmp_path / "archive", tmp_path / f"out{k}")
        found = {
            p.relative_to(tmp_path / f"out{k}").as_posix()
            for p in (tmp_path / f"out{k}").rglob("*")
            if p.is_file()
        }
        assert found == {"a/b.txt", "c.txt", "d/e.txt"}
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("x/", "")
        archive.writestr("x/y", "abc")
    data.extract_archive(str(tmp_path / "z.zip"), remove_finished=True)
    assert (tmp_path / "x" / "y").read_text() == "abc"
    assert not (tmp_path / "z.zip").exists()
    (tmp_path / "one.txt.gz").write_bytes(gzip.compress(b"abc"))
    data.extract_archive(tmp_path / "one.txt.gz")
    assert (tmp_path / "one.txt").read_text() == "abc"


def special(name, kind, target=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize("entries", [
    ["good", "../outside"], ["good", "/tmp/outside"], ["good", "a/../../outside"], ["good", "a\\..\\..\\outside"],
    ["good", special("link", tarfile.SYMTYPE, "../..")], ["good", special("link", tarfile.LNKTYPE, "/etc/passwd")],
    ["good", special("pipe", tarfile.FIFOTYPE)], ["good", special("device", tarfile.CHRTYPE)],
], ids=str)  # fmt: skip
def test_archives_that_lead_elsewhere(tmp_path, entries):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "archive").write_bytes(tar_of(entries))
    with pytest.raises(ArgumentError, match="leads out of the folder|link or a device"):
        data.extract_archive(tmp_path / "in" / "archive", tmp_path / "out" / "deep")
    if all(isinstance(e, str) for e in entries):
        with zipfile.ZipFile(tmp_path / "in" / "archive", "w") as archive:
            for name in entries:
                info = zipfile.ZipInfo("x")
                info.filename = name
                archive.writestr(info, "abc")
        with pytest.raises(ArgumentError, match="leads out of the folder"):
            data.extract_archive(tmp_path / "in" / "archive", tmp_path / "out" / "deep")
    assert not (tmp_path / "out").exists()
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a").symlink_to(outside)
    (tmp_path / "in" / "archive").write_bytes(tar_of(["a/b"]))
    with pytest.raises(ArgumentError, match="leads out of the folder"):
        data.extract_archive(tmp_path / "in" / "archive", tmp_path / "linked")


def test_damaged_archives(tmp_path):
    whole = tar_of([f"file{k}" for k in range(50)])
    for content, name in (
        (whole[: len(whole) // 2], "x.tar.gz"),
        (b"nothing", "x.zip"),
        (b"\x1f\x8b\x08broken", "x.gz"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArgumentError, match="is damaged|is no zip, tar"):
            data.extract_archive(tmp_path / name, tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        data.extract_archive(tmp_path / "none.zip")


def test_download_and_extract(server, tmp_path):
    server.files["/a.tgz"] = tar_of(["x/y"])
    md5 = hashlib.md5(server.files["/a.tgz"]).hexdigest()
    data.download_and_extract_archive(
        server.url + "/a.tgz", tmp_path, tmp_path / "out", md5=md5, remove_finished=True
    )
    assert (tmp_path / "out" / "x" / "y").read_bytes() == b"abc"
    assert not (tmp_path / "a.tgz").exists()
    data.ensure_dir(tmp_path / "p" / "q")
    data.ensure_dir(tmp_path / "p" / "q")
    assert (tmp_path / "p" / "q").is_dir()


# -- samplers, timers ----------------------------------------------------------------------------------------------------
def test_weighted_sampler():
    data.set_shuffle_seed(3)
    sampler = data.WeightedRandomSampler([0, 1, 3], 4000)
    drawn = np.bincount(list(sampler), minlength=3)
    assert (len(sampler), drawn[0]) == (4000, 0)
    assert 2.6 < drawn[2] / drawn[1] < 3.4
    assert sorted(data.WeightedRandomSampler([1, 0, 5], 2, False)) == [0, 2]
    for weights, count, message in (
        ([1, -1], 2, "weights must be"), ([0, 0], 2, "not all of them 0"), ([np.nan], 1, "weights"), ([1], 0, "num_samples"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=message):
            data.WeightedRandomSampler(weights, count)
    with pytest.raises(ArgumentError, match="3 different indices can't be drawn from 2"):
        data.WeightedRandomSampler([1, 1, 0], 3, replacement=False)
    dataset = data.TensorDataset(np.arange(3)).set_attrs(sampler=sampler, batch_size=1000)
    assert [len(x) for (x,) in dataset] == [1000] * 4


def test_hook_timer():
    dataset = data.TensorDataset(np.arange(4)).set_attrs(batch_size=2)
    timer = data.HookTimer(dataset, "collate_batch")
    data.utils.HookTimer(dataset, "_load")
    assert len(list(dataset)) == 2
    assert timer.count == 0  # arrays are taken as a whole
    assert dataset._load.count == 2
    assert dataset._load.duration > 0
