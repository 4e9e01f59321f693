"""Folds along rows as the CPU runs them: whole strips of vectors and the rest, on machines with wide and narrow vectors; columns
that are added up along serial axes; and the exponential that such loops call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codegen_kit import MACHINE, Nest, check, guarded_array, run
from metafuse.backend.contract import Machine
from metafuse.dtypes import as_dtype, float32
from metafuse.kernel.expr import axis, call, const, load
from metafuse.kernel.ir import Stage
from metafuse_backend_cpu.codegen import emit

random = np.random.default_rng(0)
NARROW = Machine(cores=2, vector_bytes=16)
#: around one vector, one strip of several, and one block
LENGTHS = (1, 15, 16, 17, 63, 64, 65, 100, 1000, 1024, 2100)


@pytest.mark.parametrize("machine", [MACHINE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "uint8", "bool"])
def test_rows(dtype: str, machine: Machine) -> None:
    for length in LENGTHS:
        x = (random.standard_normal((5, length)) * 3).astype(dtype)
        nest = Nest((5,), (length,))
        element = nest.read(x, 0, 1)
        for op in ("add", "maximum", "minimum"):
            total = nest.reduce(op, element)
            nest.store(np.zeros(5, dtype), (0,), total, level="outer")
        tolerance = 2e-3 if dtype == "float16" else 2e-6
        check(nest, relative=tolerance, absolute=1e-5 if dtype != "float16" else 0.1, machine=machine)


@pytest.mark.parametrize("machine", [MACHINE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("length", LENGTHS)
def test_nothing_outside_of_an_array_is_read_or_written(length: int, machine: Machine) -> None:
    x, out, total = guarded_array(length), guarded_array(length), np.zeros((), np.float32)
    nest = Nest((), (length,))
    doubled = call("add", nest.read(x, 0), nest.read(x, 0))
    value = nest.reduce("add", doubled)
    nest.store(out, (0,), doubled)
    nest.store(total, (), value, level="outer")
    run(nest, machine=machine)
    np.testing.assert_array_equal(out, x + x)
    np.testing.assert_allclose(total, (x + x).sum(dtype=np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", [0, 15, 16, 63, 64, 69])
def test_nan_anywhere_reaches_every_fold(place: int) -> None:
    x = random.standard_normal((2, 70)).astype(np.float32)
    x[1, place] = np.nan
    nest, found = Nest((2,), (70,)), {}
    for op in ("add", "maximum", "minimum"):
        found[op] = np.zeros(2, np.float32)
        nest.store(found[op], (0,), nest.reduce(op, nest.read(x, 0, 1)), level="outer")
    run(nest)
    for op, got in found.items():
        assert np.isfinite(got[0]) and np.isnan(got[1]), op


def test_the_error_of_a_sum_does_not_grow_with_its_length() -> None:
    x, total = np.full(3_000_001, 0.1, np.float32), np.zeros((), np.float32)
    nest = Nest((), (x.size,))
    nest.store(total, (), nest.reduce("add", nest.read(x, 0)), level="outer")
    run(nest)
    assert abs(float(total) - x.size * float(np.float32(0.1))) <= 2**-22 * x.size * 0.1


# -- serial axes --------------------------------------------------------------------------------------------------
def rows_and_columns(parts: int, rows: int, columns: int) -> tuple[Nest, Any, Any, Any]:
    """Sums of all rows, and partial sums of columns that ``rows`` rows share."""
    x = random.standard_normal((parts, rows, columns)).astype(np.float32)
    across, down = np.zeros((parts, rows), np.float32), np.full((parts, columns), np.nan, np.float32)
    nest = Nest((parts, rows), (columns,), serial=1)
    element = nest.read(x, 0, 1, 2)
    total = nest.reduce("add", element)
    nest.store(across, (0, 1), total, level="outer")
    buffer = nest.argument(down, writes=True)
    offset = nest.offset(buffer, 0, 2)
    later = call("ne", axis(1), const(0))
    before = load(buffer, as_dtype(np.float32), offset, later, const(0, float32))
    nest.stages.append(Stage("store", "inner", call("add", before, element), 0, buffer=buffer, offset=offset))
    return nest, x, across, down


@pytest.mark.parametrize("machine", [MACHINE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 9, 100), (3, 64, 17), (7, 2, 1030), (2, 3, 0), (2, 0, 5)])
def test_columns_are_added_up_along_serial_axes(shape: tuple[int, int, int], machine: Machine) -> None:
    nest, x, across, down = rows_and_columns(*shape)
    check(nest, chunks=3, absolute=1e-5, machine=machine)
    if x.size:
        np.testing.assert_allclose(across, x.sum(2, dtype=np.float64), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(down, x.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-5)


def test_any_split_gives_the_same_bits() -> None:
    nest, _, across, down = rows_and_columns(7, 9, 100)
    run(nest)
    first = across.copy(), down.copy()
    down[...] = np.nan
    run(nest, chunks=4)
    np.testing.assert_array_equal(across, first[0])
    np.testing.assert_array_equal(down, first[1])


def test_points_along_serial_axes_belong_to_one_unit() -> None:
    text = emit(rows_and_columns(2, 3, 5)[0].kernel(), "k", MACHINE)
    assert "return sizes[0];" in text and "sizes[0] * sizes[1]" not in text


# -- exp ----------------------------------------------------------------------------------------------------------
def exponentials(x: Any) -> Any:
    y = np.zeros_like(x)
    nest = Nest(x.shape)
    nest.store(y, (0,), call("exp", nest.read(x, 0)))
    run(nest)
    return y


def test_exp_is_within_one_unit_in_the_last_place() -> None:
    x = np.arange(0, 2**32, 4099, np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x[np.abs(x) < 110], np.linspace(-104, 89, 500_000, dtype=np.float32)])
    got = exponentials(x)
    with np.errstate(over="ignore"):
        exact = np.exp(x.astype(np.float64))
        rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    unit = np.spacing(rounded[finite]).astype(np.float64)
    assert np.max(np.abs(got[finite] - exact[finite]) / unit) < 1


def test_exp_of_special_values() -> None:
    x = [np.inf, -np.inf, np.nan, -np.nan, 0, -0.0, 1e-45, 88.72283, 88.73, 1e30, -1e30, -103.97, -104, -87.4]
    values = np.array(x, np.float32)
    with np.errstate(over="ignore"):
        expected = np.exp(values.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(exponentials(values), expected, rtol=2e-7, atol=1e-45)
    assert np.isposinf(exponentials(values)[[0, 8, 9]]).all()
