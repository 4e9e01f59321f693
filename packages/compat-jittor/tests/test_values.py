"""Names that are found in the reference API alone: types, functions, files; values, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import jittor as jt
from jittor.dataset.utils import HookTimer
from metafuse.ops.registry import Sample, Tensor
from metafuse.testing.compositions import check_composition

special = pytest.importorskip("scipy.special")

#: name -> (ours, SciPy's)
FUNCTIONS = {"digamma": (jt.digamma, special.digamma), "lgamma": (jt.lgamma, special.gammaln)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    ours, theirs = FUNCTIONS[name]
    check_composition(
        ours.apply if hasattr(ours, "apply") else ours, theirs, [Sample((Tensor((3, 4), "float", 0.5, 4.0),))]
    )


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("values", [[1.75, 2.0], [], [[3.0]]])
def test_types_convert_as_numpy_does(dtype, values):
    kind = (
        getattr(jt, dtype)
        if isinstance(getattr(jt, dtype), jt.NanoString)
        else jt.array([1]).cast(dtype).dtype
    )
    assert isinstance(kind, jt.NanoString)
    found = jt.NanoString.convert(kind, values)
    np.testing.assert_array_equal(found, np.array(values).astype(dtype))
    assert found.dtype == dtype


@pytest.mark.parametrize(
    "value", [np.arange(6.0).reshape(2, 3).T, np.zeros((0, 2), np.int16), np.array([True])]
)
def test_what_is_pickled_comes_back(tmp_path, value):
    jt.safepickle({"value": value, "list": [1, "two"]}, tmp_path / "file.pkl")
    found = jt.safeunpickle(tmp_path / "file.pkl")
    np.testing.assert_array_equal(found["value"], value)
    assert found["list"] == [1, "two"]


def test_a_timed_function_answers_the_same():
    class Table:
        def row(self, number):
            return np.arange(4) * number

    table = Table()
    timer = HookTimer(table, "row")
    np.testing.assert_array_equal(table.row(3), [0, 3, 6, 9])
    assert timer.count == 1
    assert timer.duration > 0
