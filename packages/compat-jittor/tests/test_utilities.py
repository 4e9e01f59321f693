"""``jittor_utils``: downloads, the cache, PyTorch's files."""

from __future__ import annotations

import hashlib
import zipfile

import numpy as np

import jittor as jt
import jittor_utils
from jittor_utils import clean_cache
from jittor_utils.load_pytorch import load_pytorch
from jittor_utils.misc import check_integrity, download_and_extract_archive, download_url_to_local, ensure_dir
from jittor_utils.save_pytorch import save_pytorch
from metafuse.config import flag_scope
from metafuse.data import archive, download


def test_files_are_fetched_once_and_unpacked(tmp_path):
    source = tmp_path / "source.zip"
    with zipfile.ZipFile(source, "w") as packed:
        packed.writestr("inner/file.txt", "text")
    md5 = hashlib.md5(source.read_bytes(), usedforsecurity=False).hexdigest()
    root = tmp_path / "root"
    ensure_dir(root)
    download_url_to_local(source.as_uri(), "copy.zip", root, md5)
    assert check_integrity(root / "copy.zip", md5)
    download_and_extract_archive("file:///nowhere", root, filename="copy.zip", md5=md5, remove_finished=True)
    assert (root / "inner" / "file.txt").read_text() == "text"
    assert not (root / "copy.zip").exists()


def test_functions_for_files_are_metafuses():
    misc = jittor_utils.misc
    assert misc.extract_archive is archive.extract_archive
    assert misc.calculate_md5 is download.calculate_md5


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
