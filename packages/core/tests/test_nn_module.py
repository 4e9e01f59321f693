"""Modules: names, state, modes, hooks, containers, text."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.errors import ArgumentError


class Block(nn.Module):
    def __init__(self, width=3):
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm(width)
        self.scale = nn.Parameter([2.0])
        self._private = mf.ones([1])
        self.note = "kept"

    def execute(self, x):
        return self.norm(self.linear(x)) * self.scale


class Net(nn.Module):
    def __init__(self):
        self.first = Block()
        self.rest = nn.Sequential(nn.Relu(), nn.Linear(3, 2))

    def execute(self, x, twice=False):
        y = self.rest(self.first(x))
        return y * 2.0 if twice else y


NAMES = [
    "first.scale",
    "first.linear.weight",
    "first.linear.bias",
    "first.norm.weight",
    "first.norm.bias",
    "first.norm.running_mean",
    "first.norm.running_var",
    "rest.1.weight",
    "rest.1.bias",
]


def test_names_and_parameters():
    net = Net()
    assert sorted(name for name, _ in net.named_parameters()) == sorted(NAMES)
    assert sorted(net.state_dict()) == sorted(NAMES)
    assert len(net.parameters()) == len(NAMES)
    assert net.first.linear.weight.name() == "first.linear.weight"
    assert [n for n, _ in net.named_children()] == ["first", "rest"]
    assert [n for n, _ in net.named_modules()] == [
        "",
        "first",
        "first.linear",
        "first.norm",
        "rest",
        "rest.0",
        "rest.1",
    ]
    assert [n for n, p in net.named_parameters(recurse=False)] == []


def test_a_shared_layer_counts_once():
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, layer)
    assert len(net.parameters()) == 2
    assert len(net.modules()) == 2


def test_state_round_trip(tmp_path):
    mf.set_global_seed(1)
    a, b = Net(), Net()
    path = str(tmp_path / "net.weights")
    a.save(path)
    b.load(path)
    x = mf.randn([4, 3])
    a.eval(), b.eval()
    np.testing.assert_array_equal(a(x).numpy(), b(x).numpy())
    assert b.first.linear.weight.requires_grad is False
    b.train()
    assert b.first.linear.weight.requires_grad
    assert not b.first.norm.running_mean.requires_grad
    with pytest.raises(ArgumentError, match="of no kind that is read"):
        (tmp_path / "bad").write_bytes(b"nothing")
        b.load(str(tmp_path / "bad"))


def test_loading_refuses_other_shapes_and_changes_nothing():
    net = nn.Linear(2, 3)
    before = net.weight.numpy()
    state = {"weight": np.zeros((3, 3), np.float32), "bias": np.zeros(4, np.float32)}
    with pytest.raises(
        ArgumentError, match=r"weight: \(3, 2\) here, \(3, 3\) given; bias: \(3,\) here, \(4,\) given"
    ):
        net.load_state_dict(state)
    np.testing.assert_array_equal(net.weight.numpy(), before)


def test_loading_tells_names_of_one_side_only():
    net = nn.Linear(2, 3)
    with pytest.warns(UserWarning, match=r"left as they are: bias.*unknown: extra"):
        net.load_parameters(
            {"weight": np.ones((3, 2)), "extra": np.ones(1), "bn.num_batches_tracked": np.ones(1)}
        )
    np.testing.assert_array_equal(net.weight.numpy(), np.ones((3, 2)))


def test_state_dict_as_numpy():
    state = nn.Linear(2, 3).state_dict("numpy")
    assert {k: type(v) for k, v in state.items()} == {"weight": np.ndarray, "bias": np.ndarray}
    with pytest.raises(ArgumentError, match="'tensorflow'"):
        nn.Linear(2, 3).state_dict("tensorflow")


def test_modes():
    net = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.BatchNorm(2)))
    assert not net[0].is_train
    net.train()
    assert all(m.is_training() for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert not any(p.requires_grad for p in net.parameters())
    net.eval().train()
    assert [p.requires_grad for p in net.parameters()] == [True, True, False, False]


def test_forward_hooks():
    net, seen = Net(), []
    net.register_pre_forward_hook(lambda m, args, *kw: seen.append(("before", len(args), *kw)))
    net.register_forward_hook(lambda m, args, y, *kw: y + 100.0)
    y = net(mf.ones([2, 3]))
    assert y.numpy().min() > 50
    net(mf.ones([2, 3]), twice=True)
    assert seen == [("before", 1), ("before", 1, {"twice": True})]
    net.remove_forward_hook()
    net.remove_pre_forward_hook()
    assert net(mf.ones([2, 3])).numpy().max() < 50
    assert len(seen) == 2


def test_pre_forward_hook_replaces_arguments():
    layer = nn.Relu()
    layer.register_pre_forward_hook(lambda m, args: (args[0] * -1.0,))
    assert layer(mf.array([-3.0])).item() == 3


def test_backward_hooks():
    layer, seen = nn.Linear(2, 1, bias=False), {}
    layer.register_backward_hook(lambda m, gi, go: seen.update(gi=gi[0].numpy(), go=go[0].numpy()))
    x = mf.ones([3, 2])
    g = mf.grad(layer(x).sum(), x)
    np.testing.assert_allclose(seen["go"], np.ones((3, 1)))
    np.testing.assert_allclose(seen["gi"], np.repeat(layer.weight.numpy(), 3, 0))
    np.testing.assert_allclose(g.numpy(), seen["gi"])
    layer.remove_backward_hook()
    layer.register_input_backward_hook(lambda m, grads: tuple(v * 10.0 for v in grads))
    x = mf.ones([3, 2])
    np.testing.assert_allclose(mf.grad(layer(x).sum(), x).numpy(), 10 * seen["gi"], rtol=1e-6)


def test_containers():
    net = nn.Sequential({"a": nn.Linear(2, 3)}, [nn.Relu()], lambda x: x * 2.0)
    assert list(net.keys()) == ["a", "1", "2"]
    assert net(mf.ones([1, 2])).shape == (1, 3)
    assert net["a"] is net[0] is net.a
    assert isinstance(net[1:], nn.Sequential)
    assert len(net[1:]) == 2
    assert net[-1](mf.ones([1])).item() == 2
    with pytest.raises(IndexError, match=r"-3\.\.2"):
        net[3]
    items = nn.ModuleList([nn.Linear(1, 1)])
    items.append(nn.Linear(1, 1))
    items.extend([nn.Relu()])
    assert [n for n, _ in items.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    table = nn.ModuleDict({"x": nn.Linear(1, 1)})
    assert "x" in table
    params = nn.ParameterList([mf.ones([1]), mf.ones([2])])
    assert [n for n, _ in params.named_parameters()] == ["0", "1"]
    assert params[1].shape == [2]
    assert params[-1] is params[1]


def test_text():
    text = repr(Net())
    assert text.splitlines()[0] == "Net("
    assert "    first: Block(" in text
    assert "        linear: Linear(3, 3)" in text
    assert repr(nn.Relu()) == "ReLU()"


def test_apply_and_dfs():
    net, names = Net(), []
    net.apply(lambda m: names.append(type(m).__name__))
    assert names == ["Net", "Block", "Linear", "BatchNorm", "Sequential", "ReLU", "Linear"]
    path = []
    net.dfs([], None, lambda parents, k, m, n: path.append((len(parents), k, n)))
    assert path[0] == (0, None, 2)
    assert (2, "norm", 0) in path


def test_convert_dtype_keeps_handles():
    net = nn.Linear(2, 2)
    weight = net.weight
    net.float64()
    assert net.weight is weight
    assert weight.dtype == "float64"
    assert weight.requires_grad
    net.half()
    assert weight.dtype == "float16"


def test_buffers():
    net = nn.Linear(2, 2)
    net.register_buffer("table", mf.ones([3]))
    net.register_buffer("scratch", mf.ones([3]), persistent=False)
    assert sorted(net.state_dict()) == ["bias", "table", "weight"]
    assert [n for n, _ in net.named_buffers()] == ["table", "scratch"]
    net.requires_grad_(False)
    net.requires_grad_(True)
    assert net.weight.requires_grad
    assert not net.table.requires_grad


def test_make_module():
    Clip = nn.make_module(nn.hardtanh)
    layer = Clip(0.0, max_val=2.0)
    np.testing.assert_array_equal(layer(mf.array([-1.0, 5.0])).numpy(), [0, 2])
    assert repr(layer) == "hardtanh(0.0, max_val=2.0)"


def test_execute_missing():
    with pytest.raises(NotImplementedError, match=r"\[Empty\] has no execute"):
        type("Empty", (nn.Module,), {})()(1)


def test_embedding_padding_row():
    layer = nn.Embedding(4, 3, padding_idx=1)
    np.testing.assert_array_equal(layer.weight.numpy()[1], 0)
    assert layer.weight.requires_grad
    g = mf.grad(layer(mf.array([1, 1, 2])).sum(), layer.weight).numpy()
    np.testing.assert_array_equal(g.sum(1), [0, 6, 3, 0])


def test_layer_modules_follow_training_mode():
    norm = nn.BatchNorm(2)
    x = mf.array(np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32) + 5)
    y = norm(x).numpy()
    assert abs(y.mean()) < 1e-5
    norm.eval()
    assert norm(x).numpy().mean() > 3
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * x.numpy().mean(0), rtol=1e-5)


def test_changes_in_place_without_gradients_leave_parameters_trainable():
    for change in (
        lambda p: p.mul_(2.0),
        lambda p: p.clamp_(0.0, 1.0),
        lambda p: p.add_(1.0),
        lambda p: p.fill_(1.0),
        lambda p: p.__setitem__(0, 0.0),
    ):
        p = nn.Parameter([0.5, 2.0])
        with mf.no_grad():
            change(p)
        assert p.requires_grad
        assert mf.grad((p * 3).sum(), p).tolist() == [3.0, 3.0]
    x = mf.array([1.0, 2.0]).stop_grad()
    with mf.no_grad():
        x.mul_(2.0)
    assert not x.requires_grad


def test_parameters_without_buffers():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm(3))
    names = [name for name, _ in net.named_parameters(buffers=False)]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert len(net.parameters()) == len(net.parameters(buffers=False)) + 2 == 6
    assert [name for name, _ in net.named_buffers(True)] == ["1.running_mean", "1.running_var"]
    net.requires_grad_(False).requires_grad_(True)
    assert [name for name, p in net.named_parameters() if p.requires_grad] == names


def test_a_row_of_padding_that_does_not_learn():
    x = mf.array([[0, 2], [2, 1]])
    for padding in (2, -1):
        layer = nn.Embedding(3, 2, padding_idx=padding, train_padding=False)
        assert layer.weight.numpy()[2].tolist() == [0.0, 0.0]
        layer.weight.update(mf.ones(3, 2))
        layer.weight.start_grad()
        assert layer(x).tolist() == [[[1, 1], [1, 1]], [[1, 1], [1, 1]]]
        assert mf.grad(layer(x).sum(), layer.weight).tolist() == [[1, 1], [1, 1], [0, 0]]
