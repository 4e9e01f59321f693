"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import metafuse_backend_cpu

#: what is compiled has no docstrings
LEFT_OUT = ("metafuse_backend_cpu._native", "metafuse_backend_cpu._onednn")
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(metafuse_backend_cpu.__path__, "metafuse_backend_cpu.")
    if name not in LEFT_OUT
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert (
        doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
    )
