"""All distributions carry one version, and depend on each other at exactly that one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import metafuse

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = sorted((ROOT / "packages").glob("*/pyproject.toml"))


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_versions_move_in_lockstep(project):
    text = project.read_text(encoding="utf-8")
    assert re.findall(r'^version = "(.+)"', text, re.MULTILINE) == [metafuse.__version__]
    pinned = set(re.findall(r'"metafuse(?:-[a-z-]+)?==([^"]+)"', text))
    assert pinned <= {metafuse.__version__}
    if project.parent.name != "core":
        assert pinned
