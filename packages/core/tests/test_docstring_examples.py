"""The examples in the docstrings of the operators do what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import sys

import pytest

import metafuse.extents
import metafuse.ops
from metafuse.config import flag_scope

MODULES = ["metafuse.extents"] + sorted(
    name for _, name, package in pkgutil.walk_packages(metafuse.ops.__path__, "metafuse.ops.") if not package
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    importlib.import_module(name)
    backend = "reference"
    if name == "metafuse.ops.code":  # C++ in examples needs a compiler
        backend = pytest.importorskip("metafuse_backend_cpu").__name__.rpartition("_")[2]
    with flag_scope(backend=backend):
        # a function of the same name may hide the module in its package
        found = doctest.testmod(
            sys.modules[name], optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
        )
    assert found.failed == 0
