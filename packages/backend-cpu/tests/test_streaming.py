"""Loops that write past the caches: the same values as any other loop, whole lines and parts of them, and only where it pays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import metafuse as mf
from codegen_kit import MACHINE, Nest, check, guarded_array, run
from metafuse.backend.contract import Machine
from metafuse.kernel.expr import call, const
from metafuse.runtime.executor import last_program
from metafuse_backend_cpu.codegen import emit

random = np.random.default_rng(0)
#: every loop over rows that are long enough streams
STREAMS = replace(MACHINE, stream_bytes=16)
NARROW = Machine(cores=2, vector_bytes=16, stream_bytes=16)
MACHINES = pytest.mark.parametrize("machine", [STREAMS, NARROW], ids=["wide", "narrow"])
LENGTHS = (64, 255, 256, 512, 513, 1000, 2100)


def added(x, y, out):
    nest = Nest(x.shape)
    place = tuple(range(x.ndim))
    nest.store(out, place, call("add", nest.read(x, *place), nest.read(y, *place)))
    return nest


@MACHINES
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int8"])
@pytest.mark.parametrize("length", LENGTHS)
def test_elements(length, dtype, machine):
    x, y = (random.integers(-9, 9, (3, length)).astype(dtype) for _ in range(2))
    check(added(x, y, np.zeros((3, length), dtype)), machine=machine)
    check(added(x[0], y[0], np.zeros(length, dtype)), chunks=3, machine=machine)


@MACHINES
@pytest.mark.parametrize("first", [1, 3, 15, 17])
def test_an_output_that_begins_within_a_line(first, machine):
    x, y, whole = (random.standard_normal(2100).astype(np.float32) for _ in range(3))
    before = whole.copy()
    run(added(x[:2000], y[:2000], whole[first : first + 2000]), machine=machine)
    np.testing.assert_array_equal(whole[first : first + 2000], x[:2000] + y[:2000])
    np.testing.assert_array_equal(whole[:first], before[:first])
    np.testing.assert_array_equal(whole[first + 2000 :], before[first + 2000 :])


@MACHINES
@pytest.mark.parametrize("length", LENGTHS)
def test_nothing_behind_an_output_is_written(length, machine):
    x, y, out = (guarded_array(length) for _ in range(3))
    run(added(x, y, out), machine=machine)
    np.testing.assert_array_equal(out, x + y)


@MACHINES
def test_outputs_of_several_types(machine):
    x = random.standard_normal((4, 700)).astype(np.float32)
    wide, narrow, signs = np.zeros((4, 700)), np.zeros((4, 700), np.float32), np.zeros((4, 700), bool)
    nest = Nest((4, 700))
    value = nest.read(x, 0, 1)
    for out in (wide, narrow):
        nest.store(out, (0, 1), value)
    nest.store(signs, (0, 1), call("gt", value, const(0, value.dtype)))
    check(nest, machine=machine)


@MACHINES
@pytest.mark.parametrize("length", LENGTHS)
def test_rows_that_are_folded_first(length, machine):
    x, out, total = (
        random.standard_normal((5, length)).astype(np.float32),
        np.zeros((5, length), np.float32),
        np.zeros(5, np.float32),
    )
    nest = Nest((5,), (length,))
    element = nest.read(x, 0, 1)
    mean = nest.reduce("add", element)
    nest.store(total, (0,), mean, level="outer")
    nest.store(out, (0, 1), call("sub", element, mean), phase=1)
    check(nest, chunks=2, relative=1e-5, absolute=1e-4, machine=machine)


def test_an_output_in_the_memory_of_an_input():
    x = random.standard_normal(3000).astype(np.float32)
    y, expected = x.copy(), x + x
    nest = Nest((3000,))
    nest.store(y, (0,), call("add", nest.read(y, 0), nest.read(x, 0)))
    run(nest, machine=STREAMS)
    np.testing.assert_array_equal(y, expected)


def test_only_loops_that_wait_for_memory_stream():
    x, out = np.zeros(100, np.float32), np.zeros(100, np.float32)

    def text(machine, make):
        nest = Nest((100,))
        nest.store(out, (0,), make(nest.read(x, 0)))
        return emit(nest.kernel(), "kernel", machine)

    assert "mf_stream(&" in text(STREAMS, lambda v: call("add", v, v))
    assert "mf_stream(&" not in text(MACHINE, lambda v: call("add", v, v))
    many = text(STREAMS, lambda v: call("tanh", call("exp", call("sin", call("exp", v)))))
    assert "mf_stream(&" not in many


def test_large_arrays():
    x = random.standard_normal((3000, 3001)).astype(np.float32)
    a, b = mf.array(x), mf.array(x[::-1])
    np.testing.assert_array_equal((a + b).numpy(), x + x[::-1])
    np.testing.assert_array_equal((a.transpose() * 2).numpy(), x.T * 2)


def test_large_temporaries_begin_at_different_places_of_a_page():
    x = random.standard_normal((256, 256)).astype(np.float32)
    a = mf.array(x)
    with mf.no_grad():
        ((a @ a) @ (a @ (a + 1))).sync()
    places = last_program[0].plan.places
    large = [
        p
        for p, (_, nbytes) in zip(places, last_program[0].plan.temporaries, strict=True)
        if nbytes >= x.nbytes
    ]
    assert len({place % 4096 for place in large}) == len(set(large)) > 1
