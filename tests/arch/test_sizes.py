"""Source files stay below the size gate, and the gate works."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_source_file_is_too_long():
    gate = load_tool("check_sizes")
    assert gate.too_long() == []
    assert gate.needless_exceptions() == []


def test_the_gate_sees_a_long_file(tmp_path):
    gate = load_tool("check_sizes")
    folder = tmp_path / "packages" / "x"
    folder.mkdir(parents=True)
    (folder / "fits.py").write_text("a = 1\n" * 600)
    (folder / "long.cpp").write_text("int a;\n" * 601)
    assert gate.too_long(tmp_path) == [("packages/x/long.cpp", 601, 600)]
