"""numpy_code, and what stands in for operators that are compiled elsewhere."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.errors import ArgumentError, BackendError, DTypeError
from metafuse.testing import check_grads


@pytest.fixture(autouse=True)
def reference_backend():
    mf.sync_all()
    with flag_scope(backend="reference"):
        yield
        gc.collect()
        mf.sync_all()


def forward(np, data):
    a, b = data["inputs"]
    data["outputs"][0][:] = a * b
    data["outputs"][1][:] = np.sin(a)


def first(np, data):
    a, b = data["inputs"]
    assert np.allclose(data["f_outputs"][0], a * b) and len(data["f_outputs"]) == 2
    data["outputs"][0][:] = data["dout"] * (b if data["out_index"] == 0 else np.cos(a))


def second(np, data):
    data["outputs"][0][:] = data["dout"] * data["inputs"][0] * (data["out_index"] == 0)


def test_several_results_with_gradients():
    def function(a, b):
        product, sine = mf.numpy_code(
            [a.shape, a.shape], [a.dtype, a.dtype], [a, b], forward, [first, second]
        )
        return product * sine + product

    random = np.random.default_rng(5)
    check_grads(function, [random.standard_normal((2, 3)), random.standard_normal((2, 3))])


def test_only_results_that_are_needed_call_back():
    calls = []

    def counted(np, data):
        calls.append(data["out_index"])
        first(np, data)

    a, b = mf.array([1.0, 2.0]), mf.array([3.0, 4.0])
    product, sine = mf.numpy_code([a.shape, a.shape], [a.dtype, a.dtype], [a, b], forward, [counted, second])
    assert np.allclose(mf.grad(sine.sum(), a).numpy(), np.cos([1.0, 2.0]))
    assert calls == [1] and product.numpy().tolist() == [3.0, 8.0]


def test_results_keep_their_own_types_exactly():
    def mixed(np, data):
        data["outputs"][0][:] = [2**60 + 1, -5]
        data["outputs"][1][:] = [True, False, True]
        data["outputs"][2][:] = 0.1
        data["outputs"][4][:] = 1.00390625

    big, flags, half, none, small = mf.numpy_code(
        [[2], [3], [1], [0, 3], [1]], ["int64", "bool", "float16", "float32", "bfloat16"], [], mixed
    )
    assert big.numpy().tolist() == [2**60 + 1, -5] and str(big.dtype) == "int64"
    assert flags.numpy().tolist() == [True, False, True]
    assert half.item() == float(np.float16(0.1)) and none.shape == (0, 3) and none.numpy().size == 0
    assert small.item() == 1.0


def test_it_runs_when_it_is_read_beside_other_operators():
    calls = []

    def twice(np, data):
        calls.append(1)
        np.multiply(data["inputs"][0], 2, out=data["outputs"][0])

    x = mf.array([1.0, 2.0])
    y = mf.numpy_code(x.shape, x.dtype, [x + 1], twice) * 3
    assert calls == []
    assert y.numpy().tolist() == [12.0, 18.0] and calls == [1]


def test_outputs_may_be_replaced_by_what_has_their_shape():
    def replaced(np, data):
        data["outputs"][0] = data["inputs"][0] + 1

    def wrong(np, data):
        data["outputs"][0] = np.zeros(5)

    def dropped(np, data):
        data["outputs"].clear()

    x = mf.array([1.0, 2.0])
    assert mf.numpy_code([2], "float32", [x], replaced).numpy().tolist() == [2.0, 3.0]
    for callback, words in (
        (wrong, r"output 0 must have shape \[2\].*\[5\]"),
        (dropped, "1 outputs are needed"),
    ):
        failing = mf.numpy_code([2], "float32", [x], callback)
        with pytest.raises(ArgumentError, match=words):
            failing.sync()
        del failing


def test_arguments_are_checked():
    x = mf.array([1.0])
    with pytest.raises(DTypeError, match="list of arrays"):
        mf.numpy_code([1], "float32", x, forward)
    with pytest.raises(ArgumentError, match="a callback per input"):
        mf.numpy_code([1], "float32", [x], forward, [first, second])
    (y,) = mf.numpy_code(
        shapes=[[1]], dtypes=["float32"], inputs=[x], forward=lambda np, data: data["outputs"][0].fill(3)
    )
    assert y.item() == 3
    with pytest.raises(ArgumentError, match="a callback per input"):
        mf.numpy_code([1], "float32", [x])
    with pytest.raises(ArgumentError, match="dtype per shape"):
        mf.numpy_code([[1], [2]], ["float32"], [x], forward)


def test_what_is_compiled_elsewhere_points_to_code():
    for function in (mf.compile_custom_op, mf.compile_custom_ops):
        with pytest.raises(BackendError, match=r"metafuse\.code"):
            function("header", "source", "name")
    with pytest.raises(BackendError, match="'reference' can't run C"):
        mf.code([1], "float32", [], cpu_src="@out(0) = 1;").sync()
    gc.collect()


def test_candidates_are_chosen_one_by_one():
    boxes = np.array([[0.0, 2.0], [0.5, 2.5], [3.0, 4.0], [3.1, 3.9], [10.0, 11.0]], np.float32)
    chosen = mf.candidate(mf.array(boxes), "(@x(j,1) > @x(i,0)) && (@x(j,0) < @x(i,1))")
    assert chosen.numpy().tolist() == [0, 2, 4] and str(chosen.dtype) == "int32"
