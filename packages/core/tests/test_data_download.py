"""Downloads from a local server, archives: verified, interrupted, taken up again, malicious."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import numpy as np
import pytest

import metafuse as mf
from data_kit import cifar_files, idx, packed
from metafuse import data
from metafuse.data import cifar as cifar_module
from metafuse.data import mnist as mnist_module
from metafuse.data.download import DownloadError, Progress, fetch
from metafuse.errors import ArgumentError

RNG = np.random.default_rng(4)
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
], ids=["above", "absolute", "up and out", "backslashes", "symbolic link", "hard link", "pipe", "device"])  # fmt: skip
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
