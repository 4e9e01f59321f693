"""Every hook is described, documented and used by a plugin that ships."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from metafuse.plugins import hookspecs
from metafuse.plugins.manager import BUILT_IN

ROOT = Path(__file__).resolve().parents[2]
HOOKS = [name for name in dir(hookspecs) if name.startswith("metafuse_")]


def test_there_are_few_hooks():
    assert 1 <= len(HOOKS) < 10


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_described_typed_and_documented(name):
    hook = getattr(hookspecs, name)
    assert inspect.getdoc(hook)
    assert inspect.signature(hook).return_annotation is not inspect.Signature.empty
    assert f"`{name}()`" in (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_used_by_a_plugin_that_ships(name):
    names = [
        *BUILT_IN.values(),
        *(f"metafuse_{package}.plugin" for package in ("backend_cpu", "dist_mpi", "converter")),
    ]
    modules = [importlib.import_module(module) for module in names]
    assert any(callable(getattr(module, name, None)) for module in modules)


def test_hookspecs_hold_signatures_only():
    own = [
        name
        for name, value in vars(hookspecs).items()
        if inspect.isfunction(value) and value.__module__ == hookspecs.__name__
    ]
    assert own == HOOKS
