"""The kit tested: every sabotaged backend is caught, an honest wrapper is not, and levels, expected failures and profiles
work as the plugin says."""

from __future__ import annotations

import pytest

from metafuse.plugins.registry import registry
from metafuse.testing import sabotage
from metafuse.testing.kit import LEVELS, Kit, hosted
from metafuse.testing.levels import autograd, elementwise, fusion, index, library, memory, reduce

#: a part of the suite that takes seconds: level by level, as (test, ids of its cases)
SELECTED = (
    (memory.test_memory_roundtrip, None),
    (memory.test_partial_copies, None),
    (memory.test_buffers_are_independent, None),
    (memory.test_reused_memory_is_not_shared, None),
    (elementwise.test_elementwise, ("exp", "add", "maximum", "subtract", "floor_divide", "sin")),
    (elementwise.test_elementwise_numbers, ("subtract", "ternary")),
    (elementwise.test_elementwise_specials, ("maximum", "exp")),
    (index.test_reindex, ("transpose", "stride-and-pad", "shift", "an-extra")),
    (index.test_reindex_reduce, ("add", "void")),
    (index.test_index_samples, ("transpose", "concat")),
    (reduce.test_reduce, ("add", "maximum")),
    (reduce.test_reduce_specials, None),
    (fusion.test_compositions, ("softmax", "batch_norm")),
    (fusion.test_new_numbers_in_an_old_program, None),
    (fusion.test_updates_in_place, None),
    (fusion.test_many_parameters, None),
    (fusion.test_random_graphs, None),
    (library.test_matmul, ("2x3x4", "17x16x15")),
    (autograd.test_gradient_elementwise, ("tanh",)),
)


def selected():
    for test, wanted in SELECTED:
        if test.metafuse_cases is None:
            yield test, ()
            continue
        cases = dict(test.metafuse_cases())
        for name in wanted:
            yield test, (cases[name],)


def first_failure(kit: Kit) -> str | None:
    for test, arguments in selected():
        try:
            with kit.active():
                test(kit, *arguments)
        except Exception as error:
            return f"{test.__name__}: {type(error).__name__}: {error}"
    return None


def test_an_honest_wrapper_passes():
    backend = sabotage.Sabotaged(registry().backend("reference"))
    with hosted(backend):
        assert first_failure(Kit(backend.name)) is None


@pytest.mark.parametrize("kind", sabotage.SABOTAGES, ids=lambda kind: kind.__name__)
def test_sabotage_is_caught(kind):
    backend = kind(registry().backend("reference"))
    with hosted(backend):
        failure = first_failure(Kit(backend.name))
    assert failure is not None
    assert failure.startswith("test_")


def test_selected_tests_cover_the_levels():
    levels = {test.metafuse_level for test, _ in SELECTED}
    assert levels == set(LEVELS) - {"code op"}
