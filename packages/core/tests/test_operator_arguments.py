"""Whatever an operator is called with: it answers, or it raises one of the documented exceptions in words that name it.

Every record is called with one of its legal calls in which some arguments were replaced by something else. What comes out is
not computed (legal values of a wrong size may be large); the promise is that nothing else escapes when the call is made.
"""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.errors import MetafuseError
from metafuse.graph.node import state
from metafuse.ops.registry import Operator, Sample, Tensor, all_operators

NAN = float("nan")


class Thing:
    """Something that no operator knows."""

    def __repr__(self) -> str:
        return "<thing>"


def strangers() -> list[Any]:
    """Arguments of every kind; Vars are made anew, so that none is kept pending."""
    return [
        None, True, False, 0, 1, -1, 2, 7, -9, 99, 2**70, 0.5, -1.5, NAN, float("inf"), 1j,
        "", "text", "add", "float32", "max", b"x", (), [], [None], [1, "a"], [[1], [1, 2]], (0, 0), (1, -1), [0.5],
        {}, {"a": 1}, set(), Thing(), Thing, len, slice(2), Ellipsis, range(3), np.dtype("int8"), np.int64, float,
        np.float64(0.5), np.int32(3), np.bool_(True), np.array(3), np.zeros((0,)), np.zeros((2, 0, 3)),
        np.ones((2, 3)), np.array(["a"]), np.array([None]), np.array([1j]), np.zeros((1,) * 12), np.arange(3),
        np.array([True, False]), np.ma.array([1.0]), mf.zeros(0), mf.ones(1), mf.ones(2, 3), mf.ones(2, 3, 4),
        mf.arange(3), mf.array([True, False]), mf.array([2]), mf.array([0.5]), [mf.ones(2), mf.ones(3)],
        [mf.ones(2), None], mf.ones(1, 1, 1, 1), mf.array([-1, 99]), mf.array([[0, 1], [1, 0]]),
        mf.array([1], "uint8"), mf.array([1.0], "float16"),
    ]  # fmt: skip


COUNT = len(strangers())


def calls() -> list[Any]:
    found = []
    for record in all_operators():
        samples = record.samples or ((Sample(record.domain),) if record.arity else ())
        if samples:
            found.append(pytest.param(record, samples, id=record.name))
    return found


def filled(value: Any, choose: random.Random) -> Any:
    """The sample's value with arrays for its tensors."""
    if isinstance(value, Tensor):
        kind = {
            "int": "int32",
            "bool": "bool",
            "integral": "int32",
            "any": "float32",
            "number": "float32",
            "float": "float32",
        }
        dtype = kind.get(value.dtype, value.dtype)
        low, high = (0, 2) if dtype == "bool" else (max(value.low, 0), max(value.high, 1))
        data = np.random.default_rng(choose.randrange(99)).uniform(low, high, value.shape or (2, 3))
        return mf.array(data.astype(dtype), dtype)
    if isinstance(value, (list, tuple)):
        return type(value)(filled(v, choose) for v in value)
    return value


def attempt(record: Operator, args: list[Any], kwargs: dict[str, Any], words: str) -> None:
    problem = ""
    try:
        record.function(*args, **kwargs)
    except (MetafuseError, IndexError) as error:
        problem = "" if str(error).startswith("[") else repr(error)
    except TypeError as error:
        # Python's own words for a call with too few or too many arguments
        problem = "" if f"{record.function.__name__}()" in str(error) else repr(error)
    assert not problem, f"{record.name}{words}: {problem}"


@pytest.mark.parametrize(("record", "samples"), calls())
def test_one_wrong_argument_gives_a_documented_exception(
    record: Operator, samples: tuple[Sample, ...]
) -> None:
    """Every stranger in every place of the first two samples."""
    with flag_scope(backend="reference"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, sample in enumerate(samples[:2]):
            for place in [*range(len(sample.args)), *sample.kwargs]:
                for stranger in strangers():
                    choose = random.Random(number)
                    args = [filled(a, choose) for a in sample.args]
                    kwargs = {k: filled(v, choose) for k, v in sample.kwargs.items()}
                    if isinstance(place, int):
                        args[place] = stranger
                    else:
                        kwargs[place] = stranger
                    attempt(record, args, kwargs, said(args, kwargs))
                state.pending = []


@pytest.mark.parametrize(("record", "samples"), calls())
def test_several_wrong_arguments_give_a_documented_exception(
    record: Operator, samples: tuple[Sample, ...]
) -> None:
    @settings(
        max_examples=15, deadline=None, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @given(
        st.integers(0, len(samples) - 1),
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, COUNT - 1)), min_size=2, max_size=3),
    )
    def check(number: int, changes: list[tuple[int, int]]) -> None:
        choose = random.Random(number)
        args = [filled(a, choose) for a in samples[number].args]
        kwargs = {k: filled(v, choose) for k, v in samples[number].kwargs.items()}
        pool = strangers()
        for place, stranger in changes:
            if place < len(args):
                args[place] = pool[stranger]
            elif kwargs:
                kwargs[sorted(kwargs)[place % len(kwargs)]] = pool[stranger]
            else:
                args[place % len(args)] = pool[stranger]
        attempt(record, args, kwargs, said(args, kwargs))
        state.pending = []

    with flag_scope(backend="reference"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check()


def said(args: list[Any], kwargs: dict[str, Any]) -> str:
    """The call in words that compute nothing."""

    def word(value: Any) -> str:
        if isinstance(value, mf.Var):
            return f"{value.dtype}{list(value.shape)}"
        if isinstance(value, np.ndarray):
            return f"ndarray {value.dtype}{list(value.shape)}"
        if isinstance(value, (list, tuple)):
            return f"{type(value).__name__}({', '.join(map(word, value))})"
        return repr(value)

    return f"({', '.join([*map(word, args), *(f'{k}={word(v)}' for k, v in kwargs.items())])})"
