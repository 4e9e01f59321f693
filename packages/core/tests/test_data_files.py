"""Data sets over files: placed by hand, damaged, missing; samplers."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest

from data_kit import batch, cifar_files, idx, packed, python2
from metafuse import data
from metafuse import transform as T
from metafuse.data.download import DownloadError
from metafuse.errors import ArgumentError
from metafuse.io import FileFormatError

RNG = np.random.default_rng(4)


# -- CIFAR -------------------------------------------------------------------------------------------------------------
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
    x, y = next(iter(data.CIFAR100(tmp_path).set_attrs(batch_size=5)))
    rows = np.transpose(data.CIFAR100(tmp_path).data, (0, 3, 1, 2))
    np.testing.assert_allclose(x.numpy(), rows / 255, rtol=1e-6)
    np.testing.assert_array_equal(y.numpy(), [99, 0, 1, 2, 3])
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
