"""Every public callable, called with arguments that do not belong there: a documented exception comes out, or an answer.

``METAFUSE_FUZZ_SECONDS`` says for how long to draw beyond the fixed calls (in a process of its own, so that a crash is seen);
``python packages/core/tests/illegal_kit.py`` does the same by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import illegal_kit as kit
from metafuse.config import flag_scope
from metafuse.errors import ArgumentError
from metafuse.testing.surface import Public, callables

DRAWS = 6
TARGETS = [public for public in callables() if not kit.excluded(public.name)]
SECONDS = float(os.environ.get("METAFUSE_FUZZ_SECONDS", "0"))


@pytest.fixture(scope="module", autouse=True)
def a_folder_of_its_own() -> Iterator[None]:
    with flag_scope(backend="reference"), kit.apart():
        yield


@pytest.mark.parametrize("public", TARGETS, ids=lambda public: public.name)
def test_only_documented_exceptions_come_out(public: Public) -> None:
    @settings(
        max_examples=DRAWS, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @given(st.randoms(use_true_random=False, note_method_calls=False))
    def check(random) -> None:
        text, problem = kit.one(public, random.choice)
        assert not problem, f"\n{text}\n{problem}"

    check()


def test_most_of_what_is_public_is_called() -> None:
    assert len(TARGETS) > 900
    assert len(TARGETS) > 0.95 * len(callables())


def test_what_is_excluded_exists() -> None:
    names = [public.name for public in callables()]
    assert [start for start, _ in kit.EXCLUDED if not any(n.startswith(start) for n in names)] == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("(lambda x: x.shape)(None)", ""),  # the caller's own mistake
        ("mf.array('abc')", ""),
        ("mf.ones(2)[5]", ""),
        ("mf.exp(1, 2, 3, nonsense=4)", ""),
        ("open('nowhere')", ""),
        ("mf.full([2**40], 1.0).numpy()", ""),
    ],
)
def test_what_is_allowed(line: str, problem: str) -> None:
    assert kit.attempt([line]) == problem


@pytest.mark.parametrize(
    "error",
    [AttributeError, ZeroDivisionError, RecursionError, AssertionError, UnboundLocalError, MemoryError, TypeError, ValueError],
)  # fmt: skip
def test_what_is_not_allowed(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of ours that raises it is noticed."""

    def broken(*args: object) -> None:
        raise error("from NumPy, say")

    monkeypatch.setattr(sys.modules["metafuse.ops.reduce"], "_fold", broken)
    assert kit.attempt(["mf.max(mf.ones(2))"]).startswith(error.__name__)


def test_an_error_without_the_name_of_its_function_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless(*args: object) -> None:
        raise ArgumentError("something is wrong")

    monkeypatch.setattr(sys.modules["metafuse.ops.shape"], "check_var", nameless)
    assert "no operator's name" in kit.attempt(["mf.flatten(mf.ones(2))"])


def test_a_call_that_does_not_end_is_noticed() -> None:
    assert kit.attempt(["[None for _ in iter(int, 1)]"], seconds=0.2) == "does not end"


def _process(seconds: float, backend: str, *more: str) -> None:
    program = Path(__file__).with_name("illegal_kit.py")
    done = subprocess.run(
        [sys.executable, str(program), str(seconds), backend, *more],
        capture_output=True, text=True, check=False, timeout=seconds * 4 + 120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.compiler
def test_nothing_crashes_where_kernels_are_compiled() -> None:
    pytest.importorskip("metafuse_backend_cpu")
    if SECONDS:
        _process(SECONDS, "cpu")
    else:
        _process(120, "cpu", "", "0", "1")  # one call each


@pytest.mark.skipif(not SECONDS, reason="METAFUSE_FUZZ_SECONDS is not set")
def test_nothing_is_found_in_a_long_search() -> None:
    _process(SECONDS, "reference")
