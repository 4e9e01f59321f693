"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import metafuse_converter

MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(metafuse_converter.__path__, "metafuse_converter.")
    if not name.endswith("__main__")  # which runs the command line
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert (
        doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
    )
