"""What ``docs/dtypes.md`` says of casts from floats to integers and of sums, on every backend that is here."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope

BACKENDS = ["reference", *(["cpu"] if importlib.util.find_spec("metafuse_backend_cpu") else [])]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with flag_scope(backend=request.param):
        yield


@pytest.mark.parametrize("floating", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("integer", INTEGERS)
def test_casts_cut_the_fraction_off_and_never_raise(floating, integer):
    low = 0.0 if integer.startswith("u") else -100.0
    values = np.array([0.0, 0.5, 1.75, 2.5, 99.5, low, low + 0.5, np.nan, np.inf, -np.inf, 1e30, -1e30])
    result = mf.array(values, floating).cast(integer)
    assert result.dtype == integer
    np.testing.assert_array_equal(result.numpy()[:7], np.trunc(values[:7]))
    clear = mf.array(values, floating).nan_to_num(0.0).clamp(0, 100).cast(integer)
    assert clear.tolist() == [0, 0, 1, 2, 99, 0, 0, 0, 100, 0, 100, 0]


def test_all_but_zero_is_true():
    assert mf.array([0.0, -0.0, 0.1, np.nan, -np.inf]).bool().tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("integer", INTEGERS)
def test_sums_of_integers_keep_the_type_and_wrap_around(integer):
    x = mf.full([300], 100, integer)
    for total in (x.sum(), x.cumsum(0)[-1:]):
        assert total.dtype == integer
        assert total.item() == np.array([30000]).astype(integer)[0]
    assert x.int64().sum().item() == 30000


def test_sums_of_bool_count():
    assert mf.ones([300], "bool").sum().dtype == mf.ones([300], "bool").prod().dtype == "int32"
    assert mf.ones([300], "bool").sum().item() == 300
