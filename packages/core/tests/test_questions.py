"""Questions about Vars, hooks on gradients, and advice: the small functions of the reference API."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.errors import ArgumentError, DTypeError, GradientError


# -- questions -------------------------------------------------------------------------------------------------------
def test_peek_computes_nothing(capsys):
    x = mf.ones(2, 3) * 2
    assert (
        mf.peek_s((x, {"a": x.sum()}, 3.5, None, "text"))
        == "[float32[2, 3], {'a': float32[1]}, float, NoneType, text]"
    )
    mf.peek([x])
    assert capsys.readouterr().out == "[float32[2, 3]]\n"
    assert x.peek() == "float32[2, 3]"
    assert x._node.buffer is None


def test_attrs():
    x = mf.zeros(2, 1)
    assert (
        x.attrs()
        == mf.attrs(x)
        == {"is_stop_fuse": False, "is_stop_grad": False, "shape": (2, 1), "dtype": mf.zeros(1).dtype}
    )
    assert mf.attrs(x.int32())["is_stop_grad"]
    with pytest.raises(DTypeError, match=r"\[attrs\] var must be a Var, got list"):
        mf.attrs([x])


def test_what_a_var_says_of_itself():
    x = mf.ones(3)
    y = x * 2
    assert "multiply float32[3] pending, recorded at" in y.debug_msg()
    assert "test_questions.py" in y.debug_msg()
    y.sync()
    assert "stored" in y.debug_msg()
    assert x.id != y.id
    assert x.id == x.id
    assert isinstance(x.id, int)
    assert x.location() in ("cpu", "reference")
    assert y.stop_fuse() is y
    assert not y.is_stop_fuse()


@pytest.mark.parametrize(
    "op",
    [
        "add",
        "subtract",
        "multiply",
        "divide",
        "floor_divide",
        "mod",
        "maximum",
        "less",
        "equal",
        "left_shift",
    ],
)
@pytest.mark.parametrize(
    ("x", "y"), [("int32", "int8"), ("uint8", "uint8"), ("int64", "bool"), ("uint16", "int32")]
)
def test_inferred_types_are_those_of_results(op, x, y):
    a, b = mf.array([1], x), mf.array([1], y)
    assert mf.binary_dtype_infer(op, x, y) == getattr(mf, op)(a, b).dtype
    assert mf.binary_dtype_infer(op, x, "int32", yscalar=True) == getattr(mf, op)(a, 1).dtype
    assert mf.binary_dtype_infer(op, "int32", y, xscalar=True) == getattr(mf, op)(1, b).dtype


def test_inferred_types_of_floats():
    assert mf.binary_dtype_infer("add", "float16", "float64") == "float64"
    assert mf.binary_dtype_infer("multiply", mf.float16, float, yscalar=True) == "float16"
    assert mf.binary_dtype_infer("add", "float32", "float32", True, True) == "float32"
    with pytest.raises(ArgumentError, match="no operator 'nothing'"):
        mf.binary_dtype_infer("nothing", "int32", "int32")
    with pytest.raises(ArgumentError, match="'exp' is no operator of two values"):
        mf.binary_dtype_infer("exp", "float32", "float32")


def test_hash_is_stable():
    assert mf.hash("metafuse") == 7855370527121508587
    assert len({mf.hash(str(k)) for k in range(1000)}) == 1000


def test_names_of_types_are_equal_to_them():
    x = mf.ones(1)
    assert x.dtype == mf.float32
    assert x.dtype == mf.float
    assert mf.float32 == x.dtype
    assert x.dtype != mf.float16
    assert x.dtype != np.exp
    assert x.dtype in (mf.int32, mf.float32)


def test_data_given_by_a_types_name_lose_nothing_and_take_gradients():
    x = mf.float32([1, 2, 3])
    assert mf.grad((x * x).sum(), x).tolist() == [2, 4, 6]
    assert mf.float64(np.array([1 / 3])).numpy()[0] == 1 / 3
    assert mf.int64([2**40]).item() == 2**40


# -- gradients -------------------------------------------------------------------------------------------------------
def test_hooked_gradients_come_together_and_may_be_replaced():
    x, y = mf.array([2.0]), mf.array([3.0])
    seen = []

    def swap(grads):
        seen.append([g.item() for g in grads])
        return grads[::-1]

    a, b = mf.grad_hooker([x, y], swap)
    assert (a.item(), b.item()) == (2, 3)
    assert [g.item() for g in mf.grad(a * 5 + b * 7, [x, y])] == [7, 5]
    assert seen == [[5, 7]]


def test_a_hook_that_only_looks_and_arguments_that_are_no_vars():
    x = mf.array([2.0])
    hooked, text = mf.GradHooker(lambda grads: None)(x, "text")
    assert text == "text"
    assert mf.grad(hooked * 5, x).item() == 5
    with pytest.raises(DTypeError, match=r"\[GradHooker\] hook must be a function, got int"):
        mf.GradHooker(3)


def test_advice_for_those_who_look_for_gradients_on_a_var():
    x = mf.ones(1)
    assert not hasattr(x, "grad")
    with pytest.raises(AttributeError, match=r"mf.grad\(loss, var\)"):
        _ = x.grad
    with pytest.raises(GradientError, match=r"optimizer.step\(loss\)"):
        x.backward()


def test_update_cuts_the_path_and_keeps_what_is_trainable():
    x, p, running = mf.ones(2), mf.ones(2), mf.ones(2).stop_grad()
    assert p.update(p - x * 3) is p
    assert p.tolist() == [-2, -2]
    assert p.requires_grad
    assert mf.grad((p * p).sum(), p).tolist() == [-4, -4]
    with pytest.warns(UserWarning, match="no gradient"):
        assert mf.grad((p * p).sum(), x).tolist() == [0, 0]
    assert running.update(running + x).is_stop_grad()
    assert p.update([1, 2]).requires_grad


# -- files -----------------------------------------------------------------------------------------------------------
def test_saved_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = mf.array(np.linspace(-0.5, 1.5, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4).astype(np.float32))
    path = tmp_path / "images.png"
    mf.transform.save_image(pixels, path, nrow=1, padding=1, pad_value=1.0)
    with image.open(path) as found:
        assert found.size == (6, 11)
        values = np.asarray(found)
    assert (values[0] == 255).all()
    expected = np.clip(pixels.numpy()[1] * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    np.testing.assert_array_equal(values[6:10, 1:5], expected)
    mf.transform.save_image([mf.rand(1, 4, 4)], tmp_path / "gray.bmp", normalize=True)
    with image.open(tmp_path / "gray.bmp") as found:
        assert found.mode == "L"
    with pytest.raises(ArgumentError, match="make_grid"):
        mf.transform.save_image(mf.ones(3, 3), path)
