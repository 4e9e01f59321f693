"""The benchmarks' helper: results that differ give no ratio, runs take turns, statistics are right, pages keep their parts."""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def harness():
    former = sys.modules.get("harness")
    yield load("harness")
    sys.modules.pop("harness")
    if former is not None:
        sys.modules["harness"] = former


@pytest.fixture
def options(harness):
    return harness.Options(1, 6, 1.0, argparse.Namespace())


def test_results_are_compared(harness):
    a = np.array([1.0, 2.0], np.float32)
    assert harness.agree(a, a) == ""
    assert harness.agree([a, a], [a, a.reshape(2, 1)]) == ""
    assert "largest difference 1" in harness.agree(a, a + 1)
    assert "shapes" in harness.agree(a, a[:1])
    assert "result 1" in harness.agree([a, a], [a, 2 * a])
    assert "largest difference nan" in harness.agree(np.array([np.nan]), np.array([1.0]))


def test_no_ratio_without_agreement(harness, options, capsys):
    ran = []
    table = harness.Table("title", "peer", options)
    ratio = table.row("case", lambda: ran.append(1), lambda: ran.append(2), target=1, problem="they differ")
    last = capsys.readouterr().out.splitlines()[-1]
    assert ratio == 0 and table.failed == 1 and ran == []
    assert last.startswith("| case |") and "results differ: they differ" in last


def test_sides_take_turns(harness):
    order: list[str] = []
    taken = harness.interleave(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 4, 9, warm_up=0, pause=0
    )
    assert "".join(order) == "abbaabba"
    assert all(len(sample.seconds) == 4 for sample in taken.values())


def test_a_row_has_median_quartiles_ratio_and_verdict(harness, options, capsys, monkeypatch):
    ticks = iter([0, 1, 1, 3, 3, 5, 5, 6] * 2)  # ours takes 1, theirs 2, whoever comes first
    monkeypatch.setattr(harness, "_clock", [lambda: next(ticks) / 1000])
    options.runs = 4
    table = harness.Table("title", "peer", options)
    assert table.row("met", lambda: None, lambda: None, target=1.5, names=["k"]) == pytest.approx(2)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "| met | 1 (1-1) | 2 (2-2) | 2.00 (2.00-2.00) | 2.00 | 1.5 met | 1 |"
    assert table.failed == 0
    ticks = iter([0, 1, 1, 3, 3, 5, 5, 6] * 2)
    table.row("missed", lambda: None, lambda: None, target=2.5)
    assert "2.5 **missed**" in capsys.readouterr().out
    assert table.failed == 1


def test_every_benchmark_is_on_the_page_and_in_the_readme(harness):
    runner = load("run_all")
    scripts = {path.stem for path in FOLDER.glob("bench_*.py")}
    assert set(runner.RUNS) == scripts
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in scripts if f"`{name}.py`" not in readme] == []
    page = (FOLDER.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    sections = runner.sections(page)
    assert set(sections) == scripts
    for name, section in sections.items():
        assert section.startswith(f"## {runner.title(name)}\n")
        commands = re.findall(r"^`(python .*)`$", section, re.MULTILINE)
        assert commands == [runner.command(name, arguments) for arguments in runner.RUNS[name]]


def test_a_profile_has_a_row_per_launch_or_per_name(harness, capsys):
    import metafuse as mf

    x = mf.array(np.ones((30, 40), np.float32)).sync()

    def call():
        mf.sync([(x * 2).sum(0), (x * 3).sum(1)])
        x.exp().sync()

    for by_name in (False, True):
        harness.profile(call, by_name=by_name, runs=2)
        lines = capsys.readouterr().out.splitlines()
        rows = [[part.strip() for part in line.split("|")[1:-1]] for line in lines[2:-2]]
        assert lines[0].startswith("| launches | times |") and lines[-1].startswith("all launches ")
        assert sum(int(row[1]) for row in rows) >= 2 and len({row[0] for row in rows}) <= len(rows)
        assert not by_name or len({row[0] for row in rows}) == len(rows)
        assert [float(row[2]) for row in rows] == sorted((float(row[2]) for row in rows), reverse=True)
    harness.profile(call, most=1)
    assert len(capsys.readouterr().out.splitlines()) == 5
