"""The kit tested: every sabotaged backend is caught, an honest wrapper is not, and levels, expected failures and profiles
work as the plugin says."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.errors import ArgumentError
from metafuse.ops.registry import Sample, Tensor, find
from metafuse.plugins.registry import registry
from metafuse.testing import check_grads, sabotage
from metafuse.testing.compare import Case, compare, run
from metafuse.testing.compositions import check_composition
from metafuse.testing.errors import ConformanceError
from metafuse.testing.gradients import GradientError
from metafuse.testing.kit import LEVELS, Kit, hosted, profile_named
from metafuse.testing.levels import (
    autograd,
    contract,
    elementwise,
    fusion,
    index,
    library,
    memory,
    odd_inputs,
    reduce,
)

pytest_plugins = ["pytester"]

#: a part of the suite that takes seconds: level by level, as (test, ids of its cases)
SELECTED = (
    (memory.test_memory_roundtrip, None),
    (memory.test_partial_copies, None),
    (memory.test_buffers_are_independent, None),
    (memory.test_reused_memory_is_not_shared, None),
    (contract.test_one_step_with_several_calls, None),
    (contract.test_reads_come_before_writes, None),
    (elementwise.test_elementwise, ("exp", "add", "maximum", "subtract", "floor_divide", "sin", "less")),
    (elementwise.test_many_elements, None),
    (elementwise.test_near_zero, None),
    (elementwise.test_elementwise_numbers, ("subtract", "ternary")),
    (elementwise.test_elementwise_specials, ("maximum", "exp")),
    (elementwise.test_whole_range, ("less",)),
    (index.test_reindex, ("transpose", "stride-and-pad", "shift", "infinity-for-overflow", "an-extra")),
    (index.test_reindex_reduce, ("add", "void")),
    (index.test_index_samples, ("transpose", "concat")),
    (reduce.test_reduce, ("add", "maximum")),
    (reduce.test_reduce_specials, None),
    (fusion.test_compositions, ("softmax", "batch_norm")),
    (fusion.test_new_numbers_in_an_old_program, None),
    (fusion.test_updates_in_place, None),
    (fusion.test_memory_of_dead_values, None),
    (elementwise.test_cast, None),
    (fusion.test_many_parameters, None),
    (fusion.test_random_graphs, None),
    (library.test_matmul, ("2x3x4", "17x16x15")),
    (autograd.test_gradient_elementwise, ("tanh",)),
)


@pytest.fixture(scope="module", autouse=True)
def private_cache(tmp_path_factory):
    """What sabotaged backends compile is of no use to anybody else."""
    with flag_scope(cache_dir=str(tmp_path_factory.mktemp("cache"))):
        yield


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
    assert levels == set(LEVELS) - {"code op", "collectives"}


# -- the pytest plugin ------------------------------------------------------------------------------------------------
PREAMBLE = """
import pytest
from metafuse.testing.kit import level
pytest_plugins = ["metafuse.testing.plugin"]
BACKEND = "reference"
"""
LEVELS_OUT_OF_ORDER = """
@level("reduce")
def test_later(conformance):
    assert conformance.backend.name == "reference"

@level("memory", cases=lambda: [("good", 1), ("bad", 2)])
def test_earlier(conformance, case):
    assert case == 1

def test_of_no_level():
    pass
"""


def run_file(pytester: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(test_inner=text)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-ra", *arguments)


def test_levels_run_in_order_and_a_red_one_skips_the_later(pytester):
    result = run_file(pytester, PREAMBLE + LEVELS_OUT_OF_ORDER, "-v")
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    result.stdout.re_match_lines_random([".*level 'memory' failed .test_earlier.bad.*"])
    text = result.stdout.str()
    assert text.index("test_earlier[good]") < text.index("test_later")


def test_all_levels_run_if_asked(pytester):
    result = run_file(
        pytester, PREAMBLE + LEVELS_OUT_OF_ORDER, "-p", "metafuse.testing.plugin", "--metafuse-all-levels"
    )
    result.assert_outcomes(passed=3, failed=1)


def test_expected_failures_do_not_make_a_level_red(pytester):
    pytester.makefile(".txt", expected="# known\n\ntest_earlier[bad]   two is too many\n")
    result = run_file(pytester, PREAMBLE + 'XFAIL_FILE = "expected.txt"\n' + LEVELS_OUT_OF_ORDER)
    result.assert_outcomes(passed=3, xfailed=1)
    result.stdout.fnmatch_lines(["*two is too many*"])


def test_an_expected_failure_that_passes_is_an_error(pytester):
    pytester.makefile(".txt", expected="test_earlier[good] once upon a time\ntest_earlier[bad] indeed\n")
    result = run_file(pytester, PREAMBLE + 'XFAIL_FILE = "expected.txt"\n' + LEVELS_OUT_OF_ORDER)
    result.assert_outcomes(passed=1, xfailed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*once upon a time*"])


def test_an_expected_failure_that_does_not_exist_is_an_error(pytester):
    pytester.makefile(".txt", expected="test_earlier[ugly] no such case\n")
    text = PREAMBLE + 'XFAIL_FILE = "expected.txt"\n' + LEVELS_OUT_OF_ORDER
    result = run_file(pytester, text)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*names tests that do not exist: test_earlier[[]ugly[]]*"])
    # a selection is no proof that a name is wrong
    result = run_file(pytester, text, "test_inner.py::test_of_no_level", "test_inner.py::test_earlier")
    result.assert_outcomes(passed=2, failed=1)


def test_a_missing_backend_is_named(pytester):
    text = PREAMBLE.replace("reference", "nosuchchip") + LEVELS_OUT_OF_ORDER
    result = run_file(pytester, text)
    result.stdout.fnmatch_lines(["*there is no backend 'nosuchchip'; installed: *reference*"])
    result.assert_outcomes(passed=1, errors=2, skipped=1)


def test_other_projects_are_left_alone(pytester):
    pytester.makepyfile(
        test_b="def test_two(): pass\ndef test_one(): pass\n",
        test_a="import pytest\n@pytest.mark.parametrize('case', [1, 2])\ndef test_case(case): pass\n",
    )
    result = pytester.runpytest_inprocess("-p", "metafuse.testing.plugin", "-p", "no:cacheprovider", "-v")
    result.assert_outcomes(passed=4)
    text = result.stdout.str()
    # the line of the interpreter names its folder, which may be a clone of this project
    assert "metafuse" not in text.split("rootdir")[0].replace(sys.executable, "")
    order = [text.index(name) for name in ("test_case[1]", "test_case[2]", "test_two", "test_one")]
    assert order == sorted(order)


def test_profiles():
    quick, again = profile_named("ci"), profile_named("ci")
    assert quick == again
    assert profile_named("deep", 7) == profile_named("deep", 7)
    assert profile_named("deep").deep
    with pytest.raises(ValueError, match="'ci' or 'deep'"):
        profile_named("nightly")


# -- messages ---------------------------------------------------------------------------------------------------------
def test_a_failure_names_operator_inputs_backend_and_place_and_can_be_pasted(capsys):
    backend = {kind.__name__: kind for kind in sabotage.SABOTAGES}["RoughExp"](
        registry().backend("reference")
    )
    record = find("exp")
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    with hosted(backend):
        kit = Kit(backend.name)
        with kit.active(), pytest.raises(ConformanceError) as caught:
            run(kit, [Case.of(record, (x,))])
        head, *script = str(caught.value).splitlines()
        assert re.match(
            r"\[exp\] float32\[2,3\] on roughexp-reference: max \|diff\| [\d.e-]+ > [\d.e-]+ at \(\d,\d\): got",
            head,
        )
        with kit.active():
            exec("\n".join(line.strip() for line in script), {})
    assert "2.718" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("got", "expected", "says"),
    [
        (np.zeros(3, np.int32), np.zeros(3), "dtype int32"),
        (np.zeros((3, 1), np.float32), np.zeros(3), "shape [3, 1], expected [3]"),
        (np.array([0, np.nan], np.float32), np.zeros(2), "NaN: 1 of 2"),
        (np.array([0, np.inf], np.float32), np.zeros(2), "infinity: 1 of 2"),
        (np.array([-np.inf], np.float32), np.array([np.inf]), "infinity: 1 of 1"),
        (np.array([0], np.float32), np.array([-np.inf]), "infinity: 1 of 1"),
        (np.array([3e38], np.float32), np.array([1e300]), "infinity: 1 of 1"),
        (np.array([1e308]), np.array([np.inf]), "infinity: 1 of 1"),
        (np.array([1, 2], np.int8), np.array([1, 3]), "1 of 2 elements differ, first at (1)"),
        (np.array([True]), np.array([False]), "1 of 1 elements differ"),
        (np.array([1.0, 1.001], np.float32), np.ones(2), "max |diff| 0.001 >"),
    ],
)
def test_compare_sees(got, expected, says):
    assert says in compare(got, expected, Kit("reference"))


def test_compare_accepts_what_rounds_to_infinity_and_wraps_around():
    kit = Kit("reference")
    assert compare(np.array([np.inf, 65504], np.float16), np.array([1e6, 65504.0]), kit) == ""
    largest = np.array([np.finfo(np.float32).max])
    assert compare(largest, largest.astype(np.float64) * (1 + 1e-7), kit) == ""
    assert compare(np.array([-56], np.int8), np.array([200]), kit) == ""
    assert compare(np.array([1 + 1e-6], np.float32), np.ones(1), kit) == ""


# -- gradients ----------------------------------------------------------------------------------------------------------
def test_check_grads_accepts_right_gradients_and_names_wrong_ones():
    with Kit("reference").active():
        check_grads(lambda x, y: mf.exp(x) * y, [[0.5, 1.0], [2.0, -3.0]], order=2)
        with pytest.raises(GradientError, match=r"\[half\] gradient of input 1 at \(0\): 0, numeric"):
            check_grads(lambda x, y: x * y.detach(), [[0.5, 1.0], [2.0, -3.0]], name="half")
        with pytest.raises(ArgumentError, match="none of the inputs"):
            check_grads(lambda x: x, [np.arange(3)])


# -- odd inputs, compositions ---------------------------------------------------------------------------------------
def unlike_when_empty(x):
    return x.sum() if x.numel() else mf.array([1.0], x.dtype)


def unlike_when_single(x):
    return x.sum(0) if x.shape[0] > 1 else x.sum(0) + 1


def without_slope(x):
    return (x * x).detach() + x


#: (a function that is wrong in one way, NumPy's meaning, what the message says)
WRONG = [
    (unlike_when_empty, lambda x: x.sum(), r"float32\[0,4\] on reference: max .diff. 1"),
    (unlike_when_single, lambda x: x.sum(0), r"float32\[1,4\] on reference: max .diff. 1"),
    (without_slope, lambda x: x * x + x, "gradient of input 0"),
    (lambda x: x * 2, lambda x: x + x * 1.01, "max .diff."),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_composition_is_caught(number):
    function, oracle, message = WRONG[number]
    with pytest.raises(ConformanceError, match=message):
        check_composition(function, oracle, [Sample((Tensor((3, 4)),))], name="wrong")


def test_a_gradient_that_should_not_be_is_caught():
    sample = Sample((Tensor((3, 4)),))
    check_composition(lambda x: x.detach() * 2, lambda x: 2 * x, [sample], gradient=False)
    with pytest.raises(ConformanceError, match="has a gradient path"):
        check_composition(lambda x: x * 2, lambda x: 2 * x, [sample], gradient=False)


def test_views_show_the_same_values():
    record, bases = odd_inputs.through_views(find("subtract"), 0)
    x, y = np.arange(12.0).reshape(3, 4), np.arange(12.0).reshape(3, 4) ** 2
    held = bases((x, y))
    assert [h.shape for h in held] == [(3, 9), (3, 4)]
    np.testing.assert_array_equal(record.numpy(*held), x - y)
    np.testing.assert_array_equal(record.function(*map(mf.array64, held)).numpy(), x - y)


def test_extents_are_replaced_everywhere():
    sample = Sample((Tensor((2, 3)), [Tensor((3,))]), {"k": Tensor((2,))})
    found = [
        (s.args[0].shape, s.args[1][0].shape, s.kwargs["k"].shape)
        for s in odd_inputs.resized(sample, fixed=(2,))
    ]
    assert found == [((2, 0), (0,), (2,)), ((2, 1), (1,), (2,))]
