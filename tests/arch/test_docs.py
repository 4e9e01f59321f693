"""Documentation can't rot: generated pages are current, commands and links exist, examples run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("changes/*.md"), *ROOT.glob("tests/*.md"),
        *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/*/*.md"),
        *ROOT.glob("packages/*/README.md"), *ROOT.glob("packages/*/src/**/README.md"),
    ]
)  # fmt: skip
#: files of a reader's own in examples of commands
NOT_OURS = {"train.py", "script.py", "converted.py"}
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_generated_pages_are_current():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "generate_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_outdated_page_is_noticed(tmp_path, monkeypatch):
    tool = load_tool("generate_docs")
    page = tmp_path / "page.md"
    page.write_text("# Kept\n\n<!-- generated: hooks -->\nold\n<!-- end -->\n")
    monkeypatch.setattr(tool, "DOCS", tmp_path)
    assert tool.outdated() == [page]
    page.write_text(tool.render(page.read_text()))
    assert tool.outdated() == []
    text = page.read_text()
    assert text.startswith("# Kept\n")
    assert "metafuse_backends()" in text
    assert "old" not in text


@pytest.mark.parametrize("page", [*READMES, ROOT / "CONTRIBUTING.md"], ids=relative)
def test_commands_name_sessions_that_exist(page):
    sessions = set(
        re.findall(r"^@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    )
    named = re.findall(r"nox -s (\w+)", page.read_text(encoding="utf-8"))
    assert named
    assert set(named) <= sessions


def test_continuous_integration_runs_the_command_of_the_readme():
    command = "python3 -m pip install nox && python3 -m nox -s tests"
    assert command in "\n".join(blocks(ROOT / "README.md", "sh"))
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_both_readmes_show_the_same_code():
    def code(path: Path) -> list[str]:
        return [re.sub(r"\s*#.*", "", block) for block in blocks(path, "python") + blocks(path, "sh")]

    assert code(READMES[0]) == code(READMES[1])


@cache
def files() -> list[Path]:
    return [p for p in ROOT.rglob("*") if not {".git", ".nox"} & set(p.relative_to(ROOT).parts)]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_that_are_named_exist(page):
    """Names in code marks that end like a file of the tree's; a pattern stands for one file at least."""
    for quoted in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
        for name in re.findall(r"(?<![\w./-])[\w*][\w./*-]*\.(?:py|cpp|hpp|toml)\b", quoted):
            known = name in NOT_OURS or any(p.match(name) for p in files())
            assert known, f"{relative(page)} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{relative(page)} links to {target}"


def test_the_reading_order_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [p.name for p in (ROOT / "docs").glob("*.md") if p.name != "README.md"]
    assert [name for name in pages if f"({name})" not in index] == []


def test_the_list_of_decisions_is_complete():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in folder.glob("[0-9]*.md") if f"({p.name})" not in index] == []


def test_the_example_of_the_readme_runs_and_learns(capsys):
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert float(capsys.readouterr().out) < 0.02


@pytest.mark.parametrize("page", READMES, ids=relative)
def test_the_readmes_count_the_networks(page):
    models = pytest.importorskip("metafuse_models")
    networks = [name for name in models.__all__ if name.islower() and name != "register_weights"]
    (row,) = [line for line in page.read_text(encoding="utf-8").splitlines() if "metafuse-models`" in line]
    assert re.findall(r"\[(\d+) ", row) == [str(len(networks))]


PAGES_WITH_EXAMPLES = [
    *(
        f"docs/{name}.md"
        for name in ("flags", "code", "explain", "compile", "distributed", "files", "library", "precision")
    ),
    *(f"packages/{name}/README.md" for name in ("core", "models", "compat-jittor", "converter")),
]


@pytest.mark.parametrize("page", PAGES_WITH_EXAMPLES)
def test_the_examples_of_other_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    names = {"__name__": "page"}
    for code in blocks(ROOT / page, "python"):
        script = code + "\nimport metafuse; metafuse.flags.debug = 0\n"
        exec(compile(script, page, "exec"), names)
