"""The examples in docstrings do what they show: of everything public, and of all modules."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import metafuse
from metafuse.config import flag_scope
from metafuse.testing.surface import Public, callables, methods_of

#: the first runs the command line, and what is compiled has no docstrings
LEFT_OUT = ("metafuse.__main__", "metafuse._compiled")
MODULES = sorted(
    name for _, name, _ in pkgutil.walk_packages(metafuse.__path__, "metafuse.") if name not in LEFT_OUT
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
#: beginnings of names -> what their examples need that the core does not
NEEDS = {
    "metafuse.data.ImageFolder": "PIL",
    "metafuse.data.folder": "PIL",
    "metafuse.einops": "einops",
    "metafuse.models": "metafuse_models",
    "metafuse.save_image": "PIL",
    "metafuse.transform": "PIL",
}


def skip_without_what_it_needs(name: str) -> None:
    for beginning, module in NEEDS.items():
        if name.startswith(beginning):
            pytest.importorskip(module)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is not public, too."""
    skip_without_what_it_needs(name)
    monkeypatch.chdir(tmp_path)
    importlib.import_module(name)
    backend = "reference"
    if name == "metafuse.ops.code":  # C++ in examples needs a compiler
        backend = pytest.importorskip("metafuse_backend_cpu").__name__.rpartition("_")[2]
    with flag_scope(backend=backend):
        # a function of the same name may hide the module in its package
        found = doctest.testmod(sys.modules[name], optionflags=FLAGS)
    assert found.failed == 0


def examples(public: Public) -> Iterator[tuple[str, str]]:
    """Names, and docstrings with examples."""
    values = [(public.name, public.value)]
    if public.is_class:
        values += [(f"{public.name}.{name}", value) for name, value in methods_of(public.value)]
    for name, value in values:
        text = inspect.getdoc(value) or ""
        if ">>>" in text:
            yield name, text


WITH_EXAMPLES = [public for public in callables() if any(True for _ in examples(public))]


@pytest.mark.parametrize("public", WITH_EXAMPLES, ids=lambda public: public.name)
def test_public_examples(
    public: Public, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a reader pastes them: they import what they name. They may write files. Functions that a decorator or a factory made are
    found here only."""
    if public.value is metafuse.code:
        pytest.skip("needs a compiler; runs with its module")
    skip_without_what_it_needs(public.name)
    monkeypatch.chdir(tmp_path)
    failed = 0
    with flag_scope(backend="reference"):
        for name, text in examples(public):
            test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
            failed += doctest.DocTestRunner(optionflags=FLAGS).run(test).failed
    assert not failed, capsys.readouterr().out
