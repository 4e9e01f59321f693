"""Files of PyTorch: what ``torch.save`` wrote is read here, in both formats, and what is written here ``torch.load`` reads."""

from __future__ import annotations

import io as streams
from collections import OrderedDict

import numpy as np
import pytest

import metafuse as mf
from metafuse import io, nn
from metafuse.dtypes import DTYPES
from metafuse.io import FileFormatError

torch = pytest.importorskip("torch")

FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def written(value, new=True):
    file = streams.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=new)
    file.seek(0)
    return file


def numbers(tensor):
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def same(ours, theirs):
    assert str(ours.dtype) == str(theirs.dtype)[6:]
    assert ours.shape == tuple(theirs.shape or (1,))
    np.testing.assert_array_equal(ours.numpy(), numbers(theirs).reshape(ours.shape))


@FORMATS
@pytest.mark.parametrize("name", list(DTYPES))
def test_every_element_type(new, name):
    dtype = getattr(torch, name)
    base = torch.arange(24).to(dtype)
    tensors = {
        "plain": base.reshape(2, 3, 4),
        "transposed": base.reshape(2, 3, 4).transpose(0, 2),
        "cut": base.reshape(2, 3, 4)[1:, ::2, 1:3],
        "expanded": base[5:6].expand(4, 3),
        "number": base[7],
        "empty": base[:0].reshape(0, 3),
    }
    found = mf.load(written(tensors, new))
    assert list(found) == list(tensors)
    for key, tensor in tensors.items():
        same(found[key], tensor)


@FORMATS
def test_states_of_networks_and_optimizers(new):
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(theirs.parameters(), 0.01)
    theirs(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    found = mf.load(
        written({"net": theirs.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, new)
    )
    assert found["epoch"] == 3
    assert isinstance(found["net"], OrderedDict)
    state = optimizer.state_dict()
    assert found["optimizer"]["param_groups"] == state["param_groups"]
    same(found["optimizer"]["state"][1]["exp_avg_sq"], state["state"][1]["exp_avg_sq"])
    ours = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Linear(4, 2))
    ours.load_state_dict(found["net"])
    theirs.eval(), ours.eval()
    x = torch.randn(5, 3)
    np.testing.assert_allclose(
        ours(mf.array(x.numpy())).numpy(), theirs(x).detach().numpy(), rtol=2e-5, atol=1e-6
    )


@FORMATS
def test_module_load(tmp_path, new):
    theirs = torch.nn.Linear(3, 4)
    torch.save(theirs.state_dict(), tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    ours = nn.Linear(3, 4)
    ours.load(tmp_path / "x.pth")
    np.testing.assert_array_equal(ours.weight.numpy(), theirs.weight.detach().numpy())


@FORMATS
def test_shared_storages_parameters_and_other_values(new):
    base = torch.arange(10.0)
    parameter = torch.nn.Parameter(base[2:5])
    marked = torch.nn.Parameter(torch.ones(2))
    marked.note = "kept elsewhere"
    value = {
        "views": [base[k : k + 3] for k in range(5)], "parameter": parameter, "frozen": torch.nn.Parameter(base, False),
        "marked": marked, "shape": torch.Size([2, 3]), "device": torch.device("cpu"), "numpy": np.arange(3),
        "numbers": [np.float32(2.5), 2**70, -1, 1.5, None, True, "ü", b"\xff", (1, 2), {3, 4}, 1 + 2j],
    }  # fmt: skip
    if new:
        value["dtype"] = torch.bfloat16
    found = mf.load(written(value, new))
    for ours, theirs in zip(found["views"], value["views"], strict=True):
        same(ours, theirs)
    same(found["parameter"], parameter)
    assert [found[k].requires_grad for k in ("parameter", "frozen", "marked")] == [True, False, True]
    assert (found["shape"], found["device"], found["numbers"]) == ((2, 3), "cpu", value["numbers"])
    assert found["numpy"].tolist() == [0, 1, 2]
    if new:
        assert found["dtype"] == "bfloat16"


@FORMATS
@pytest.mark.parametrize(("make", "message"), [
    (lambda: torch.zeros(2, dtype=torch.complex64), "view_as_real"),
    (lambda: torch.zeros(2, dtype=torch.complex128), "view_as_real"),
    (lambda: torch.zeros(2).to_sparse(), "to_dense"),
    (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "dequantize"),
    (lambda: torch.zeros(2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
    (lambda: torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear.*state_dict"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore")  # of sparse and quantized tensors
def test_what_no_var_can_be_is_refused(make, message, new):
    with pytest.raises(FileFormatError, match=message):
        mf.load(written({"x": make()}, new))


@pytest.mark.filterwarnings("ignore")  # PyTorch advises against it
def test_torchscript_is_refused(tmp_path):
    class Net(torch.nn.Module):
        def forward(self, x):
            return x + 1

    file = streams.BytesIO()
    torch.jit.save(torch.jit.trace(Net(), torch.ones(1)), file)
    file.seek(0)
    with pytest.raises(FileFormatError, match="TorchScript"):
        mf.load(file)


def test_without_checksums():
    options = torch.serialization
    before = options.get_crc32_options()
    options.set_crc32_options(False)
    try:
        same(mf.load(written(torch.arange(3))), torch.arange(3))
    finally:
        options.set_crc32_options(before)


@pytest.mark.parametrize("name", list(DTYPES))
@pytest.mark.parametrize("options", [{}, {"mmap": True}])
def test_what_is_written_here(tmp_path, name, options):
    values = mf.array(np.arange(6).reshape(2, 3) % (2 if name == "bool" else 9), name)
    mf.save({"x": values, "empty": mf.array(np.zeros((0, 2), np.float32))}, tmp_path / "x.pth")
    found = torch.load(tmp_path / "x.pth", weights_only=True, **options)
    assert found["x"].dtype == getattr(torch, name)
    np.testing.assert_array_equal(numbers(found["x"]), values.numpy())
    assert found["empty"].shape == (0, 2)
    assert found["x"].is_contiguous()


def test_structures_that_are_written_here(tmp_path):
    shared = mf.array(np.arange(4.0))
    value = {
        "a": shared, "b": [shared, np.arange(3)], "tensor": torch.arange(6.0).reshape(2, 3).T, "t": torch.ones(2).bfloat16(),
        "n": (1, 2, 3, 4, -5), "big": 2**70, "f": 1.5, "s": "ü", "none": None, "yes": True, "raw": b"\0\xff",
        "ordered": OrderedDict(x=np.float32(2)), 3: [],
    }  # fmt: skip
    mf.save(value, tmp_path / "x.pth")
    found = torch.load(tmp_path / "x.pth", weights_only=True)
    assert found["a"].data_ptr() == found["b"][0].data_ptr()
    assert torch.equal(found["tensor"], value["tensor"])
    assert found["t"].dtype == torch.bfloat16
    for key in ("n", "big", "f", "s", "none", "yes", "raw", 3):
        assert found[key] == value[key]
    assert found["ordered"] == OrderedDict(x=2.0)


def test_networks_there_and_back(tmp_path):
    ours = nn.Sequential(nn.Conv(3, 4, 3), nn.BatchNorm(4))
    ours.save(tmp_path / "x.pth")
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    theirs.load_state_dict(torch.load(tmp_path / "x.pth", weights_only=True), strict=False)
    np.testing.assert_array_equal(theirs[0].weight.detach().numpy(), ours[0].weight.numpy())
    torch.save(theirs.state_dict(), tmp_path / "y.pth")
    again = io.load_pytorch(tmp_path / "y.pth", to="numpy")
    np.testing.assert_array_equal(again["0.weight"], ours[0].weight.numpy())


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool"]
)
@pytest.mark.parametrize(
    "make", [lambda t: t, lambda t: t.T, lambda t: t[:, ::2], lambda t: t[:0], lambda t: t[:1, :1]]
)
def test_tensors_become_vars(dtype, make):
    t = make(torch.arange(12).reshape(3, 4).to(getattr(torch, dtype)))
    x = mf.from_torch(t)
    assert x.dtype == dtype
    np.testing.assert_array_equal(x.numpy(), t.to(torch.float64).numpy())
    assert x.requires_grad is t.is_floating_point()
    if x.requires_grad:
        np.testing.assert_array_equal(mf.grad((x * x).sum(), x).numpy(), 2 * t.to(torch.float64).numpy())
