"""What is kept in an output between the phases of a kernel is read by everybody before the output gets its own value."""

from __future__ import annotations

import numpy as np
import pytest

from codegen_kit import Nest, run
from metafuse.kernel.expr import call

SHAPES = [(9, 8), (40, 70), (3, 700)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("later", [0, 1])
def test_two_results_of_what_is_kept(shape: tuple[int, int], across: bool, later: int) -> None:
    """The second one in the phase of the first, or in one after it."""
    x = np.random.default_rng(4).uniform(-2, 2, shape).astype(np.float32)
    share, other = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    nest, index = (
        (Nest((shape[1],), (shape[0],)), (1, 0)) if across else (Nest((shape[0],), (shape[1],)), (0, 1))
    )
    power = call("exp", nest.read(x, *index))
    total = nest.reduce("add", power, 0)
    nest.store(share, index, call("div", power, total), 1)
    nest.store(other, index, call("mul", power, total), 1 + later)
    run(nest)
    exact = np.exp(x.astype(np.float64))
    sums = exact.sum(0 if across else 1, keepdims=True)
    np.testing.assert_allclose(share, exact / sums, rtol=1e-5)
    np.testing.assert_allclose(other, exact * sums, rtol=1e-5)
