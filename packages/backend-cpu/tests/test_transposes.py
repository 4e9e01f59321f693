"""Tiles over two axes: squares of vectors that are turned, what is left at the edges, and what is computed on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codegen_kit import MACHINE, Nest, check, guarded_array, run
from metafuse.backend.contract import Machine
from metafuse.kernel.expr import call
from metafuse_backend_cpu.codegen import emit

random = np.random.default_rng(0)
MACHINES = pytest.mark.parametrize(
    "machine",
    [MACHINE, replace(MACHINE, stream_bytes=16), Machine(vector_bytes=32), Machine(vector_bytes=16)],
    ids=["wide", "streams", "half", "narrow"],
)
#: around one square, a tile, and rows that are too short for squares
SHAPES = ((1, 5), (3, 200), (15, 17), (16, 16), (33, 130), (64, 128), (70, 300), (129, 65))


def turned(shape, dtype):
    x = (random.standard_normal(shape) * 9).astype(dtype)
    y = np.zeros(shape[::-1], dtype)
    nest = Nest(shape[::-1])
    nest.store(y, (0, 1), nest.read(x, 1, 0))
    return nest, x, y


@MACHINES
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "bool"])
def test_transposes(dtype, machine):
    for shape in SHAPES:
        nest, x, y = turned(shape, dtype)
        assert "mf_turn" in emit(nest.kernel(), "kernel", machine)
        run(nest, chunks=3, machine=machine)
        np.testing.assert_array_equal(y, x.T)


@MACHINES
def test_what_joins_a_transposition(machine):
    a, b, c = (random.standard_normal(s).astype(np.float32) for s in ((90, 140), (90, 140), (140, 90)))
    for order in ((0, 1), (1, 0)):
        nest = Nest((2, 140, 90))
        both = call("mul", nest.read(a, 2, 1), call("exp", nest.read(b, 2, 1)))
        nest.store(np.zeros((2, 140, 90), np.float32), (0, 1, 2), call("add", both, nest.read(c, 1, 2)))
        nest.store(np.zeros((140, 90) if order == (0, 1) else (90, 140)), [1 + k for k in order], both)
        check(nest, chunks=2, machine=machine)


@MACHINES
@pytest.mark.parametrize("shape", [(16, 64), (20, 70), (64, 16)])
def test_nothing_outside_of_an_array_is_read_or_written(shape, machine):
    x = guarded_array(shape[0] * shape[1]).reshape(shape)
    y = guarded_array(shape[0] * shape[1]).reshape(shape[::-1])
    nest = Nest(shape[::-1])
    nest.store(y, (0, 1), nest.read(x, 1, 0))
    run(nest, machine=machine)
    np.testing.assert_array_equal(y, x.T)


def test_rows_of_a_larger_array():
    whole = random.standard_normal((100, 300)).astype(np.float32)
    part, y = whole[10:90, 20:250], np.zeros((230, 80), np.float32)
    nest = Nest((230, 80))
    nest.store(y, (0, 1), nest.read(part, 1, 0))
    run(nest, chunks=2)
    np.testing.assert_array_equal(y, part.T)
