"""The loops behind sorting, compiled: they answer what their NumPy says, for long rows and whatever the number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.ops import sorting_loops as loops

pytestmark = pytest.mark.compiler
RANDOM = np.random.default_rng(5)

#: longer than what one thread sorts on its own, and more than the members of a histogram
LONG = 40_000


def rows():
    """Long rows whose keys differ in all digits, in a few, in none, or are in order already."""
    wide = RANDOM.standard_normal(LONG).astype(np.float32)
    ties = np.round(wide, 1)
    ties[::97] = np.nan
    same = np.full(LONG, 3, np.float32)
    return {
        "wide": wide,
        "ties": ties,
        "same": same,
        "ascending": np.sort(wide),
        "descending": -np.sort(wide),
    }


ROWS = rows()


def check(found, expected):
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_rows(threads, name, dtype):
    values = ROWS[name].astype(dtype)
    x, sheet = mf.array(values, dtype=dtype), values.reshape(1, -1, 1)
    distinct = loops._distinct(values, 1, 1)
    used = np.arange(len(distinct)) < 1 + distinct[0]
    used[1 + LONG : 1 + LONG + distinct[0]] = used[1 + 2 * LONG :] = True
    for count in (1, 3):
        threads(count)
        for descending in (0, 1):
            check(loops.order(x, 0, bool(descending)), loops._order(sheet, descending).reshape(-1))
            for k in (3, 40, 400, LONG // 2):
                check(loops.best(x, 0, k, bool(descending)), loops._best(sheet, descending, k).reshape(-1))
        for place in (0, LONG // 2, LONG - 1):
            check(loops.nth(x, 0, place), loops._nth(sheet, place).reshape(-1))
        check(loops.common(x, 0), loops._common(sheet).reshape(-1))
        check(loops.distinct(x, True, True)[mf.array(used)], distinct[used])


def test_many_rows_and_threads(threads):
    """Rows side by side in memory, blocks of which no number of threads divides evenly."""
    values = RANDOM.integers(-50, 50, (3, 210, 37)).astype(np.int32)
    x, ascending = mf.array(values), np.sort(values, 1)
    answers = []
    for count in (1, 2, 3):
        threads(count)
        found = [
            *mf.sort(x, 1),
            *mf.topk(x, 9, 1, False),
            mf.median(x, 1),
            *mf.mode(x, 2),
            *mf.unique(x, True, True),
        ]
        found += [mf.searchsorted(mf.array(ascending[0, :, 0]), x), mf.isin(x, x[0, :40, 0])]
        answers.append([v.numpy() for v in found])
    check(mf.array(answers[0][0]), ascending)
    for other in answers[1:]:
        for one, two in zip(answers[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_permutations_are_those_of_numpy():
    for count in (0, 1, 255, 256, 257, 5000):
        bits = mf.array(RANDOM.integers(0, 2**24, 3) / 2**24, dtype="float32")
        check(loops.permutation(bits, count), loops._permutation(bits.numpy(), count))


def test_searches_in_rows():
    for dtype in ("float32", "int64"):
        values = np.sort(RANDOM.integers(0, 40, (5, 33)), 1).astype(dtype)
        wanted = RANDOM.integers(-2, 43, (5, 131)).astype(dtype)
        x, w = mf.array(values, dtype=dtype), mf.array(wanted, dtype=dtype)
        for right in (False, True):
            expected = loops._insertion_places(values, wanted, int(right))
            check(loops.insertion_places(x, w, right), expected)
        check(loops.contained(x[:1], w, False), loops._contained(values[0], wanted, 0))
