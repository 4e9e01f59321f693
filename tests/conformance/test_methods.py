"""Every name under which users find an operator record: its methods and their in-place variants, values and gradients.

The kit calls the records' functions; here the same sample goes through ``Var``'s attributes. What a name is bound to is
one function for all backends, so one backend is enough.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import metafuse as mf
from metafuse import Var
from metafuse.ops.registry import all_operators
from metafuse.testing.compare import Case, run
from metafuse.testing.gradients import Check
from metafuse.testing.kit import Kit
from metafuse.testing.levels.autograd import Call, first_sample, usual
from metafuse.testing.levels.samples import pick
from metafuse.testing.strategies import sample_arguments

KIT = Kit("reference")


def sample_of_array(record):
    """The record's first sample that begins with an array."""
    samples = record.samples or [first_sample(record)]
    return next((s for s in samples if s.args and hasattr(s.args[0], "shape")), None)


def called(name, in_place):
    """A function that calls the attribute ``name`` of its first argument, in place of a copy, which has to be the answer."""

    def call(x, *args, **kwargs):
        if not in_place:
            return getattr(x, name)(*args, **kwargs)
        held = x.clone()
        answer = getattr(held, name)(*args, **kwargs)
        assert answer is held, f"{name} answers another Var"
        return held

    call.__name__ = name
    return call


def names():
    """(name, record, whether in place) of everything that is made from a record with a NumPy meaning."""
    for record in all_operators():
        if record.numpy is None or not record.methods or sample_of_array(record) is None:
            continue
        for name in record.methods:
            yield name, record, False
            variant = getattr(Var, f"{name}_", None)
            if record.rebinds and getattr(variant, "__wrapped__", None) is record.function:
                yield f"{name}_", record, True


CASES = list(names())


@pytest.mark.parametrize(("name", "record", "in_place"), CASES, ids=[c[0] for c in CASES])
def test_method(name, record, in_place):
    sample = sample_of_array(record)
    function = called(name, in_place)
    with KIT.active():
        args, kwargs = sample_arguments(sample, lambda kind: pick(KIT, kind, "float32"), KIT.random(name))
        run(KIT, [Case(name, function, args, kwargs, record.numpy, scale=not record.arity)])
        args, kwargs = sample_arguments(sample, lambda kind: usual(KIT, kind), KIT.random(name, "gradient"))
        call = Call(replace(record, function=function), args, kwargs)
        if record.differentiable and any(a.dtype == np.float64 for a in call.arrays):
            check = Check(call.of_vars, call.arrays, call.of_arrays, name=name)
            mf.sync(check.analytic)
            check.finish()


def test_there_are_many():
    assert sum(in_place for _, _, in_place in CASES) > 100
    assert len(CASES) > 250
