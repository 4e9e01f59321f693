"""``jittor_utils``: downloads, archives, the cache, PyTorch's files."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import jittor as jt
import jittor_utils
from jittor_utils import clean_cache
from jittor_utils.load_pytorch import load_pytorch
from jittor_utils.misc import (
    calculate_md5,
    check_file_exist,
    check_integrity,
    check_md5,
    download_and_extract_archive,
    download_url_to_local,
    ensure_dir,
    extract_archive,
)
from jittor_utils.save_pytorch import save_pytorch
from metafuse.config import flag_scope
from metafuse.data import DownloadError
from metafuse.errors import ArgumentError


def md5_of(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_sums(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 1000)
    assert calculate_md5(path, chunk_size=7) == calculate_md5(str(path)) == md5_of(path)
    assert check_md5(path, md5_of(path), chunk_size=100)
    assert not check_md5(path, "0" * 32)
    assert check_integrity(path)
    assert check_integrity(path, md5_of(path))
    assert not check_integrity(path, "0" * 32)
    assert not check_file_exist(tmp_path / "none", None)
    assert check_file_exist(path, md5_of(path))


def test_folders(tmp_path):
    ensure_dir(tmp_path / "a" / "b")
    ensure_dir(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_download_checks_and_is_not_repeated(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"contents")
    md5 = md5_of(source)
    root = tmp_path / "root"
    path = download_url_to_local(source.as_uri(), "copy.bin", root, md5)
    assert path == str(root / "copy.bin")
    source.unlink()
    assert download_url_to_local("file:///nowhere", "copy.bin", root, md5) == path
    assert download_url_to_local("file:///nowhere", "copy.bin", root, None) == path
    with pytest.raises(DownloadError, match="other.bin"):
        download_url_to_local(source.as_uri(), "other.bin", root, md5)
    with pytest.raises(DownloadError, match="put it at .*other.bin"):
        download_url_to_local(source.as_uri(), "other.bin", root, None)
    assert sorted(p.name for p in root.iterdir()) == ["copy.bin"]


def test_download_without_a_sum(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"contents")
    path = download_url_to_local(source.as_uri(), "copy.bin", tmp_path / "root", None)
    assert Path(path).read_bytes() == b"contents"


def archives(tmp_path, name="inner/file.txt"):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "text")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"text"))
    return [tmp_path / "a.zip", tmp_path / "a.tar.gz"]


def test_archives_are_unpacked(tmp_path):
    for k, path in enumerate(archives(tmp_path)):
        extract_archive(path, tmp_path / str(k), remove_finished=True)
        assert (tmp_path / str(k) / "inner" / "file.txt").read_text() == "text"
        assert not path.exists()


def test_an_archive_is_unpacked_where_it_is(tmp_path):
    extract_archive(str(archives(tmp_path)[0]))
    assert (tmp_path / "inner" / "file.txt").is_file()


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "inner/../../outside.txt"])
def test_archives_can_not_write_elsewhere(tmp_path, name):
    folder = tmp_path / "folder"
    for path in archives(tmp_path, name):
        with pytest.raises(ArgumentError, match="outside"):
            extract_archive(path, folder)
    assert not (tmp_path / "outside.txt").exists()


def test_links_out_of_an_archive_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "../../etc"
        tar.addfile(info)
    with pytest.raises((ArgumentError, tarfile.TarError)):
        extract_archive(tmp_path / "a.tar", tmp_path / "folder")


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a.zip").write_text("no")
    with pytest.raises(ArgumentError, match=r"neither a \.zip nor a \.tar"):
        extract_archive(tmp_path / "a.zip")


def test_download_and_unpack(tmp_path):
    source = archives(tmp_path)[0]
    download_and_extract_archive(source.as_uri(), tmp_path / "root", md5=md5_of(source), remove_finished=True)
    assert (tmp_path / "root" / "inner" / "file.txt").read_text() == "text"
    assert not (tmp_path / "root" / "a.zip").exists()
    download_and_extract_archive(source.as_uri(), tmp_path / "root", tmp_path / "else", filename="b.zip")
    assert (tmp_path / "else" / "inner").is_dir()
    assert (tmp_path / "root" / "b.zip").is_file()


def test_files_of_pytorch(tmp_path):
    path = str(tmp_path / "net.pth")
    save_pytorch(path, {"weight": jt.ones([2, 3])})
    np.testing.assert_array_equal(load_pytorch(path)["weight"].numpy(), np.ones((2, 3)))


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("JITTOR_HOME", str(tmp_path))
    assert jittor_utils.home() == str(tmp_path)


def test_cleaning(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("METAFUSE_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    data = tmp_path / ".cache" / "metafuse-data" / "mnist"
    kernels = tmp_path / "kernels"
    data.mkdir(parents=True)
    with flag_scope(cache_dir=str(kernels)):
        (jt.ones(3) * 3.25 + 1).sync()
        assert clean_cache.main(["core", "swap", "cuda"]) == 0
        assert list(kernels.rglob("*.so")) == []
        assert data.is_dir()
        assert clean_cache.main(["all"]) == 0
        assert not data.exists()
    assert clean_cache.main(["everything"]) == 2
    assert clean_cache.main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_data_in_a_folder_of_the_users_own_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("METAFUSE_DATA_DIR", str(tmp_path))
    clean_cache.clean_dataset()
    assert tmp_path.is_dir()
