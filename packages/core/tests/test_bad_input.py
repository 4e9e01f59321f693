"""Bad input gets an exception of ours when the function is called, in words that help, and never reaches a compiler."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metafuse as mf
from metafuse.errors import (
    ArgumentError,
    DTypeError,
    IndexExpressionError,
    MetafuseError,
    OutOfMemory,
    ShapeError,
    brief,
)
from metafuse.runtime.kernels import statistics


def x() -> mf.Var:
    return mf.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


class Lying:
    """Something whose protocol answers what it must not."""

    def __index__(self) -> Any:
        return "three"


def sgd() -> Any:
    return mf.optim.SGD([x()], 0.1)


def code(shape: Any, source: str = "@out(0) = 1;") -> Any:
    return mf.code(shape, "float32", [], cpu_src=source)


CASES: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("object array", lambda: mf.array(np.array([object()])), DTypeError, r"\[array\].*object"),
    ("string", lambda: mf.array("abc"), DTypeError, r"\[array\]"),
    ("ragged", lambda: mf.array([[1], [1, 2]]), DTypeError, r"\[array\]"),
    ("complex", lambda: mf.array(np.array([1j])), DTypeError, r"complex"),
    ("none", lambda: x() + None, DTypeError, r"\[add\]"),
    ("broadcast", lambda: x() + mf.ones(2), ShapeError, r"\[add\].*\[2, 3\] and \[2\].*3 against 2"),
    ("matmul", lambda: x() @ x(), ShapeError, r"\[matmul\].*3 against 2"),
    ("reshape", lambda: x().reshape(4, 2), ShapeError, r"\[reshape\].*6 elements"),
    ("reshape two -1", lambda: x().reshape(-1, -1), ShapeError, r"\[reshape\]"),
    ("transpose", lambda: x().transpose(0, 0), ShapeError, r"\[transpose\]"),
    ("sum dim", lambda: x().sum(2), ShapeError, r"dim must be in -2..1"),
    ("sum dim twice", lambda: x().sum((0, -2)), ShapeError, r"differ"),
    ("sum dim type", lambda: x().sum(0.5), DTypeError, r"dim must be an integer"),
    ("max of nothing", lambda: mf.zeros(0, 3).max(0), ArgumentError, r"no elements"),
    ("index range", lambda: x()[5], IndexError, r"index 5 is out of bounds"),
    ("too many indices", lambda: x()[0, 0, 0], ShapeError, r"too many"),
    ("float index", lambda: x()[0.5], DTypeError, r"\[getitem\]"),
    ("NaN index", lambda: x()[np.array([np.nan])], DTypeError, r"NaN"),
    ("float index array", lambda: x()[mf.array([0.5])], DTypeError, r"integers or bool"),
    ("assignment shape", lambda: x().__setitem__(0, mf.ones(2)), ShapeError, r"\[setitem\]"),
    ("assign", lambda: x().assign(mf.ones(3)), ArgumentError, r"\[assign\]"),
    ("unknown dtype", lambda: mf.zeros(2, dtype="complex64"), DTypeError, r"\[zeros\] unknown element type"),
    ("negative extent", lambda: mf.zeros(-1), ShapeError, r">= 0"),
    ("arange step", lambda: mf.arange(0, 3, 0), ArgumentError, r"step must not be 0"),
    ("arange NaN", lambda: mf.arange(float("nan")), ArgumentError, r"finite"),
    ("integer too large", lambda: mf.array([1], "uint8") + 300, DTypeError, r"300 does not fit uint8"),
    ("bits of floats", lambda: x() & 1, DTypeError, r"\[bitwise_and\]"),
    ("grad of integers", lambda: mf.grad(mf.arange(3), x()), DTypeError, r"\[grad\]"),
    ("grad target", lambda: mf.grad(x().sum(), [1.0]), DTypeError, r"targets\[0\]"),
    ("unknown name", lambda: x().reindex([2], ["i0", "i5"]), IndexExpressionError, r"(?s)i5.*position"),
    ("syntax", lambda: x().reindex([2], ["i0", "i0+"]), IndexExpressionError, r"(?s)\[reindex\].*i0\+"),
    ("comment", lambda: x().reindex([2], ["i0", "i0//x"]), IndexExpressionError, r"\[reindex\]"),
    ("index count", lambda: x().reindex([2], ["i0"]), ShapeError, r"one index expression per dimension"),
    ("index type", lambda: x().reindex([2], [0, 0]), DTypeError, r"list of strings"),
    ("extra missing", lambda: x().reindex([2], ["i0", "@e0(i0)"]), IndexExpressionError, r"e0"),
    ("extra arguments", lambda: x().reindex([2], ["i0", "@e0(i0,i0)"], extras=[mf.arange(2)]), IndexExpressionError, r"e0"),
    ("reduce op", lambda: x().reindex_reduce("plus", [2], ["i0"]), ArgumentError, r"op must be one of"),
    ("reindex_reduce shape", lambda: x().reindex_reduce("add", [-2], ["i0"]), ShapeError, r">= 0"),
    ("concat", lambda: mf.concat([x(), mf.ones(3, 4)]), ShapeError, r"\[concat\]"),
    ("concat nothing", lambda: mf.concat([]), ArgumentError, r"\[concat\]"),
    ("split", lambda: mf.split(x(), [1, 2]), ShapeError, r"\[split\]"),
    ("item", lambda: x().item(), ArgumentError, r"\[item\]"),
    ("flag that is an array", lambda: mf.nn.Linear(2, 8, bias=np.ones(2)), DTypeError, r"\[Linear\] bias must be True or False"),
    ("flag that is a text", lambda: mf.nn.Conv(2, 8, 3, bias="no"), DTypeError, r"\[Conv\] bias must be True or False"),
    ("flag of an operator", lambda: mf.grad(x().sum(), x(), np.ones(2)), DTypeError, r"\[grad\] retain_graph"),
    ("flag of a seed", lambda: mf.seed(2, np.ones(2)), DTypeError, r"different_seed_for_mpi"),
    ("encoder", lambda: mf.nn.Transformer(custom_encoder="x"), DTypeError, r"custom_encoder must be a module"),
    ("more than 64 bits", lambda: mf.histc(x(), 2**63, 0.0, 1.0), ArgumentError, r"bins must fit into 64 bits"),
    ("more elements than can be", lambda: mf.ones(2**40, 1) * mf.ones(2**40), ShapeError, r"the limit is 2\*\*63"),
    ("joined to too many", lambda: mf.concat([mf.ones(2**62)] * 3), ShapeError, r"the limit is 2\*\*63"),
    ("index that is no integer", lambda: x()[Lying()], DTypeError, r"\[getitem\] an index must be an integer"),
    ("integer that is none", lambda: mf.data.get_order_list(Lying()), DTypeError, r"n must be an integer"),
    ("row of floats", lambda: mf.data.SubsetRandomSampler(range(3), mf.array([0.5])), DTypeError, r"indice must be a list"),
    ("array of schedulers", lambda: mf.lr_scheduler.SequentialLR(sgd(), mf.ones(2), [1]), DTypeError, r"schedulers must be"),
    ("epoch", lambda: mf.lr_scheduler.StepLR(sgd(), 2).step(len), DTypeError, r"epoch must be an integer"),  # type: ignore[arg-type]
    ("data set without length", lambda: mf.data.Subset(np.array(5), [1]), DTypeError, r"must have a length"),
    ("lengths", lambda: mf.data.random_split([1, 2], [10**400]), ArgumentError, r"below 2\*\*63"),
    ("label", lambda: mf.data.collate_batch([2**70]), ArgumentError, r"fit into 64 bits"),
    ("snippet's shape", lambda: code([2.5]), DTypeError, r"\[code\] an extent must be an integer, got 2.5"),
    ("snippet too large", lambda: code([2**62, 2**62]), ShapeError, r"\[code\] extents must give fewer than"),
    ("snippet that is no text", lambda: code([2], "//\n\ud800"), ArgumentError, r"cpu_src line 2 has a character"),
    ("random type", lambda: mf.random([2], type="cauchy"), ArgumentError, r"\[random\]"),
    ("random dtype", lambda: mf.rand(2, dtype="int32"), DTypeError, r"floating"),
    ("seed", lambda: mf.set_global_seed(-1), ArgumentError, r"seed"),
    ("code without source", lambda: mf.code([1], "float32", []), ArgumentError, r"cpu_src"),
    ("code data", lambda: mf.code([1], "float32", [], ";", data=[1]), DTypeError, r"\[code\] data must be .*, got \[1\]"),
    ("code shape", lambda: mf.code([2, -1], "float32", [], cpu_src=";"), ShapeError, r"\[code\]"),
    ("code gradients", lambda: mf.code([1], "float32", [x()], ";", ["", ""]), ArgumentError, r"one source per input"),
    ("conv stride", lambda: mf.nn.Conv(1, 2, 3, stride=0), ArgumentError, r"stride must be >= 1, got"),
    ("conv kernel", lambda: mf.nn.Conv(1, 2, -3), ArgumentError, r"kernel"),
    ("pool kernel", lambda: mf.nn.Pool(0), ArgumentError, r"kernel"),
    ("pool stride", lambda: mf.nn.Pool(2, -1), ArgumentError, r"stride"),
    ("linear", lambda: mf.nn.Linear(3, 2)(mf.ones(2, 4)), ShapeError, r"4"),
]  # fmt: skip


#: how messages begin that refuse a number, and who is given it
NO_FLOAT = [
    ("[pad] value", lambda v: mf.nn.pad(x(), (1, 1), value=v)),
    ("[reindex] overflow_value", lambda v: x().reindex([2, 3], ["i0", "i1"], v)),
    ("[pad_sequence] padding_value", lambda v: mf.nn.pad_sequence([x(), mf.ones(2, 3)], padding_value=v)),
    ("[full] val", lambda v: mf.full([2], v)),
    ("[uniform] high", lambda v: mf.uniform(0.0, v)),
    ("[isclose] rtol", lambda v: mf.isclose(x(), x(), rtol=v)),
    ("[nan_to_num] posinf", lambda v: mf.nan_to_num(x(), posinf=v)),
    ("[norm] eps", lambda v: mf.norm(x(), eps=v)),
    ("[clamp] min_v", lambda v: x().clamp(v)),
    ("[addcmul] value", lambda v: mf.addcmul(x(), x(), x(), value=v)),
    ("[where]", lambda v: mf.where(x() > 0, x(), v)),
    ("[CosineEmbeddingLoss] margin", lambda v: mf.nn.CosineEmbeddingLoss(margin=v)),
    ("[leaky_relu] scale", lambda v: mf.nn.leaky_relu(x(), v)),
    ("[hardtanh] max_val", lambda v: mf.nn.hardtanh(x(), -1.0, v)),
    ("[LeakyReLU] scale", lambda v: mf.nn.LeakyReLU(v)),
    ("[BatchNorm] eps", lambda v: mf.nn.BatchNorm(2, eps=v)),
    ("[BatchNorm] momentum", lambda v: mf.nn.BatchNorm(2, momentum=v)),
    ("[Dropout] p", lambda v: mf.nn.Dropout(v)),
    ("[layer_norm] eps", lambda v: mf.nn.layer_norm(x(), [2], 1.0, 0.0, v)),
    ("[Upsample] scale_factor", lambda v: mf.nn.Upsample(scale_factor=v)),
    ("[SGD] lr", lambda v: mf.optim.SGD([x()], lr=v)),
    ("[Adam] betas", lambda v: mf.optim.Adam([x()], 0.1, betas=(0.9, v))),
    ("[Normal] sigma", lambda v: mf.distributions.Normal(0.0, v)),
    ("[calculate_gain] param", lambda v: mf.init.calculate_gain("leaky_relu", v)),
    ("[code] data", lambda v: mf.code([1], "float32", [], ";", data={"a": v})),
    ("[batch_scope] samples", lambda v: mf.dist.batch_scope(v).__enter__()),
    ("[pad] fill", lambda v: mf.transform.pad(np.ones((2, 2), np.uint8), 1, v)),
]


@pytest.mark.parametrize("value", [10**400, -(10**5000), 1j, Decimal(1), Fraction(1, 2), "x"], ids=type)
@pytest.mark.parametrize(("begin", "call"), NO_FLOAT, ids=[begin for begin, _ in NO_FLOAT])
def test_numbers_that_are_no_floats_are_refused_when_the_function_is_called(
    begin: str, call: Any, value: Any
) -> None:
    with pytest.raises((ArgumentError, DTypeError)) as caught:
        call(value)
    assert str(caught.value).startswith(begin)


@pytest.mark.parametrize("value", [2**40, float("nan")])
def test_numbers_that_no_element_can_be_are_refused_when_the_function_is_called(value: Any) -> None:
    whole = mf.array([1, 2])
    for call in (lambda: mf.nn.pad(whole, (1, 1), value=value), lambda: whole.reindex([3], ["i0"], value)):
        with pytest.raises(ArgumentError, match="does not fit int32"):
            call()


@pytest.mark.parametrize(("call", "kind", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_bad_input_is_refused_when_the_function_is_called(
    call: Callable[[], Any], kind: type[Exception], words: str
) -> None:
    before = statistics.compilations
    with pytest.raises(kind, match=words) as caught:
        call()
    assert isinstance(caught.value, (MetafuseError, IndexError))
    assert str(caught.value).startswith("[")
    assert statistics.compilations == before


@pytest.mark.parametrize(
    "value",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12.0)[::-1],
        np.arange(12.0).reshape(3, 4)[::-1, ::2],
        np.broadcast_to(np.arange(3.0), (4, 3)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3.0).astype(">f8"),
        np.arange(6, dtype=np.int16)[1::2],
    ],
    ids=["transposed", "reversed", "strided", "broadcast", "fortran", "big-endian", "int16"],
)
def test_any_strides_simply_work(value: np.ndarray[Any, Any]) -> None:
    value = value.view()
    value.flags.writeable = False
    np.testing.assert_allclose((mf.array(value) * 2).numpy(), value.astype(np.float64) * 2)


def test_data_indices_outside_are_left_out_not_read() -> None:
    places = mf.array([0, 7, -9, 1])
    np.testing.assert_array_equal(mf.array([1.0, 2.0])[places].numpy(), [1, 0, 0, 2])
    target = mf.zeros(2)
    target[places] = mf.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(target.numpy(), [1, 4])


def test_large_64_bit_integers_are_not_narrowed() -> None:
    big = np.array([2**40, 1])
    assert mf.array(big).dtype == "int64"
    np.testing.assert_array_equal(mf.array(big).numpy(), big)


def test_a_missing_gradient_is_named_with_the_place_of_the_cut() -> None:
    weight = mf.array([1.0]).name("encoder.weight")
    with mf.no_grad():
        hidden = weight * 2
    loss = (hidden + mf.array([1.0])).sum()
    with pytest.warns(UserWarning, match=r"encoder\.weight.*cut at multiply.*test_bad_input\.py"):
        g = mf.grad(loss, weight)
    assert g.item() == 0.0


def test_the_place_of_a_cut_is_not_where_the_loss_ends() -> None:
    weight = mf.array([1.0])
    loss = (weight * 2).int32().float32().exp().sum()
    with pytest.warns(UserWarning, match="cut at cast"):
        mf.grad(loss, weight)


class Place:
    """Something that stands for an integer without being one."""

    def __index__(self) -> int:
        return 3


def test_what_stands_for_an_integer_is_one() -> None:
    assert mf.data.get_order_list(Place()) == [0, 1, 2]  # type: ignore[arg-type]
    assert mf.data.get_order_list(n=Place()) == [0, 1, 2]  # type: ignore[arg-type]
    assert mf.arange(9)[Place()].item() == 3
    assert list(mf.data.SubsetRandomSampler(range(9), mf.array([3]))) == [3]


def test_large_labels_are_not_narrowed() -> None:
    wide = mf.data.collate_batch([2**40, 1])
    assert wide.dtype == np.int64
    assert wide.tolist() == [2**40, 1]
    assert mf.data.collate_batch([5, 1]).dtype == np.int32


def test_more_bytes_than_there_are() -> None:
    with pytest.raises(OutOfMemory, match=r"^\[.*18446744073709551616 bytes"):
        mf.ones(2**62).numpy()


def test_copies_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    broad = np.broadcast_to(np.float32(1), (2**45,))
    with pytest.raises(OutOfMemory, match=r"^\[save\] no memory"):
        mf.save({"a": broad}, str(tmp_path / "much.safetensors"))
    with pytest.raises(OutOfMemory, match=r"^\[array\] no memory"):
        mf.array(broad, "float16")


def test_any_text_has_a_hash() -> None:
    assert mf.hash("\ud800") != mf.hash("\ud801")


def test_modules_of_users_take_what_they_like() -> None:
    class Own(mf.nn.Module):
        def __init__(self, bias: bool = True) -> None:
            self.kept = bias

    assert Own(bias="maybe").kept == "maybe"  # type: ignore[arg-type,comparison-overlap]
    assert mf.nn.Linear(2, 3, bias=None).bias is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: mf.where(x > 0, x, mf.ones([5])), r"\[where\] shapes"),
        (lambda x: x.masked_fill(mf.ones([7]) > 0, 1), r"\[masked_fill\] shapes"),
        (lambda x: mf.stack([mf.ones([3]), mf.ones([4])]), r"\[stack\] arrays\[1\] has shape \[4\], arrays\[0\] \[3\]"),
        (lambda x: x.sum(7), r"\[sum\] dim must be in -2..1"),
        (lambda x: x.prod(dims="a"), r"\[prod\] dim must be an integer"),
        (lambda x: x.reduce("add", 7), r"\[reduce add\] dim must"),
        (lambda x: mf.ones([1] * 33), "32 dimensions, got 33"),
    ],
)  # fmt: skip
def test_mistakes_are_told_by_the_operator_that_was_called(call, words):
    with pytest.raises(MetafuseError, match=words):
        call(mf.ones([2, 3]))


X = mf.ones(2, 3)


@pytest.mark.parametrize(
    "name, call",
    [
        ("permute", lambda: X.permute(0, 5)),
        ("view", lambda: X.view(5)),
        ("view", lambda: X.view([4.5])),
        ("clip", lambda: X.clip("a")),
        ("clip_", lambda: X.clone().clip_("a")),
        ("mul", lambda: X.mul(mf.ones(5))),
        ("arccos", lambda: mf.arccos("a")),
        ("arctan2", lambda: mf.arctan2(X, mf.ones(5))),
        ("half", lambda: mf.half("a")),
        ("astype", lambda: X.astype("strange")),
        ("ravel", lambda: X.ravel(9)),
        ("copy", lambda: mf.copy("a")),
        ("expand", lambda: X.expand(5, 7)),
        ("view_as", lambda: X.view_as(mf.ones(5))),
        ("std", lambda: X.std(5)),
        ("isclose", lambda: mf.isclose(X, mf.ones(5))),
        ("zeros_like", lambda: mf.zeros_like(X, "strange")),
        ("trace", lambda: mf.ones(2).trace()),
        ("linalg.inv", lambda: mf.linalg.inv(X)),
        ("cat", lambda: mf.cat(X)),
        ("concatenate", lambda: mf.concatenate([X, mf.ones(5)])),
        ("zeros", lambda: mf.zeros(2, dtype="strange")),
        ("conv", lambda: mf.nn.conv(X, X)),
        ("upsample", lambda: mf.nn.upsample("a", 2)),
        ("seed", lambda: mf.seed("a")),
        ("normal", lambda: mf.normal(X, mf.ones(5))),
    ],
)
def test_mistakes_are_told_by_the_name_that_was_called(name, call):
    with pytest.raises((ArgumentError, DTypeError), match=rf"^\[{name}\] "):
        call()


def test_a_function_under_another_name_is_as_fast_as_itself():
    """What records often has no function around it: the same code."""
    for name, own in [("permute", "transpose"), ("view", "reshape"), ("mul", "multiply"), ("astype", "cast")]:
        assert getattr(mf, name).__code__ is getattr(mf, own).__code__
        assert getattr(mf, name).__name__ == name


def test_lists_nested_too_deeply_to_be_shown():
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert brief(deep) == "a list nested too deeply to be shown"
    for call in (
        lambda: mf.concat(deep, deep),
        lambda: X.sum(deep),
        lambda: X.permute(deep),
        lambda: X.reduce(deep),
        lambda: mf.zeros(2, dtype=deep),
        lambda: mf.tensordot(X, X, deep),
        lambda: mf.nn.Pool(deep),
        lambda: mf.transform.Resize(deep),
        lambda: setattr(mf.flags, "no_fuse", deep),
        lambda: mf.hash(deep),
        lambda: mf.amp.autocast(deep),
    ):
        with pytest.raises((ArgumentError, DTypeError)):
            call()
    assert mf.ones(1).name(deep).name() == brief(deep)
