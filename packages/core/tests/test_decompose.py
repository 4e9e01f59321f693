"""A backend that offers few intrinsics still computes every operator that can be composed from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.errors import BackendError
from metafuse.kernel.expr import INTRINSICS, walk
from metafuse.kernel.ir import Kernel
from metafuse.ops.registry import Operator, all_operators
from metafuse.passes.decompose import _RULES
from metafuse.plugins.registry import registry
from metafuse.reference.backend import ReferenceBackend

FEW = frozenset(INTRINSICS) - frozenset(_RULES)


class FewIntrinsics(ReferenceBackend):
    """Refuses what it says it lacks."""

    name = "few"

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = replace(self.capabilities, intrinsics=FEW)

    def emit(self, kernel: Kernel, symbol: str) -> str:
        for stage in kernel.stages:
            for x in walk(stage.expr):
                assert x.op not in INTRINSICS or x.op in FEW, x.op
        return super().emit(kernel, symbol)


@pytest.fixture(scope="module", autouse=True)
def on_few() -> Iterator[None]:
    with registry().hosting(FewIntrinsics()), flag_scope(backend="few"):
        yield


@pytest.mark.parametrize("record", [r for r in all_operators() if r.arity], ids=lambda r: r.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_those_of_the_full_table(record: Operator, dtype: str) -> None:
    random = np.random.default_rng(3)
    arrays = []
    for domain in record.domain:
        values = random.uniform(domain.low, domain.high, (50,))
        if domain.dtype == "bool":
            arrays.append(values > 0)
        elif domain.dtype in ("int", "integral"):
            arrays.append(np.round(values).astype(np.int32))
        else:
            arrays.append(values.astype(dtype))
    got = record.function(*[mf.array(a, a.dtype) for a in arrays]).numpy()
    assert record.numpy is not None
    expected = record.numpy(*[a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays])
    tolerance = 2e-5 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "name", ["tanh", "expm1", "log1p", "asinh", "maximum", "minimum", "atan2", "trunc", "abs"]
)
def test_special_values(name: str) -> None:
    x = np.array([0.0, 1e-30, -1e-8, 1e-4, 88.0, -100.0, np.inf, -np.inf, np.nan, 3.5, -0.5], np.float32)
    function = getattr(mf, name)
    arguments = [x, x[::-1].copy()] if name in ("maximum", "minimum", "atan2") else [x]
    if name == "log1p":
        arguments = [np.where(x <= -1, 1.5, x).astype(np.float32)]
    oracle = {"asinh": np.arcsinh, "atan2": np.arctan2}.get(name) or getattr(np, name)
    got = function(*[mf.array(a) for a in arguments]).numpy()
    with np.errstate(all="ignore"):
        expected = oracle(*[a.astype(np.float64) for a in arguments])
    if name == "atan2":  # of two infinities no quotient exists
        defined = ~(np.isinf(arguments[0]) & np.isinf(arguments[1]))
        got, expected = got[defined], expected[defined]
    np.testing.assert_allclose(got, expected.astype(np.float32), rtol=2e-5, atol=1e-37)


def test_what_can_not_be_composed_is_named() -> None:
    class WithoutExp(FewIntrinsics):
        name = "without_exp"

        def __init__(self) -> None:
            super().__init__()
            self.capabilities = replace(self.capabilities, intrinsics=FEW - {"exp"})

    with registry().hosting(WithoutExp()), flag_scope(backend="without_exp"):
        with pytest.raises(BackendError, match=r"\[exp\].*'without_exp'"):
            mf.array([1.0]).tanh().sync()
        mf.sync_all()
