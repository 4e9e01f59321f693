"""Whole programs: converted ones run, learn, keep their comments, and are left alone by a second conversion.

That they compute what the originals compute is compared in tests/parity, which has PyTorch.
"""

from __future__ import annotations

import ast
import io
import runpy
import tokenize
from pathlib import Path

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse_converter import convert_source

SCRIPTS = {path.stem: path for path in sorted((Path(__file__).parent / "scripts").glob("*.py"))}
TARGETS = ("metafuse", "jittor")


def converted(name, target="metafuse"):
    return convert_source(SCRIPTS[name].read_text(encoding="utf-8"), target=target, filename=f"{name}.py")


def comments(text):
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sorted(token.string for token in tokens if token.type == tokenize.COMMENT)


def run(name, tmp_path, target="metafuse"):
    path = tmp_path / f"{name}.py"
    path.write_text(converted(name, target).source, encoding="utf-8")
    with flag_scope(use_cuda=0, log_silent=1):
        mf.set_global_seed(0)
        return runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("name", SCRIPTS)
def test_everything_is_converted(name):
    done = converted(name)
    assert done.report == []
    assert "torch" not in {n.id for n in ast.walk(ast.parse(done.source)) if isinstance(n, ast.Name)}
    imported = {
        a.name.split(".")[0]
        for n in ast.walk(ast.parse(done.source))
        if isinstance(n, ast.Import)
        for a in n.names
    }
    assert "metafuse" in imported
    assert "torch" not in imported


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_is_lost(name, target):
    """Comments, strings, definitions and statements of the original are in the converted text."""
    before, after = SCRIPTS[name].read_text(encoding="utf-8"), converted(name, target).source
    missing = [c for c in comments(before) if c not in comments(after)]
    assert missing == []

    def texts(source):
        return {
            n.value
            for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        }

    def definitions(source):
        return [n.name for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.ClassDef, ast.FunctionDef))]

    kept = texts(before) - {"cpu", "gloo", "cuda", "mps", "sum", "lr"}
    assert kept <= texts(after)
    renamed = {"forward": "execute", "backward": "grad", "__len__": "item_count"}
    after_all = [renamed.get(n, n) for n in definitions(after)]  # what is no data set keeps its length
    assert [renamed.get(n, n) for n in definitions(before)] == after_all


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_second_conversion_changes_nothing(name, target):
    once = converted(name, target).source
    again = convert_source(once, target=target)
    assert again.source == once
    assert again.unconverted == ()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCRIPTS)
def test_converted_programs_run(name, tmp_path, capsys):
    results = np.array(run(name, tmp_path)["results"], dtype=float)
    assert np.isfinite(results).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["lstm", "trainer", "function"])
def test_both_targets_compute_the_same(name, tmp_path, capsys):
    pytest.importorskip("jittor")
    first, second = (run(name, tmp_path, target)["results"] for target in TARGETS)
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
