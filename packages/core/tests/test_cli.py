"""The command line prints what it promises and its exit codes mean something."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint

import pytest

from metafuse import hot
from metafuse.cli import main, table
from metafuse.config import SETTINGS, flag_scope
from metafuse.errors import ArgumentError
from metafuse.ops.registry import all_operators
from metafuse.plugins.commands import Command
from metafuse.plugins.hookspecs import hookimpl
from metafuse.plugins.manager import Plugins
from metafuse.plugins.registry import registry


def test_table_aligns_columns():
    assert table([("a", "bcd"), ("abc", "d")], ("x", "y")) == "x    y\na    bcd\nabc  d"
    assert table([]) == ""


def test_backends_lists_reference_and_the_default(capsys):
    assert main(["backends"]) == 0
    told = capsys.readouterr().out
    assert "reference  usable" in told
    assert "\ndefault: " in told
    assert "compiler: g++" in told
    assert "recording and evaluation: " in told


def test_backends_tells_of_the_compiler_that_a_variable_names(capsys, monkeypatch):
    monkeypatch.setenv("METAFUSE_CXX", "env c++")
    monkeypatch.setenv("CXX", "missing++ -O1")
    main(["backends"])
    told = capsys.readouterr().out.splitlines()
    (line,) = [line for line in told if line.startswith("compiler: env c++: ")]
    assert "not found" not in line
    assert "compiler: missing++ -O1: not found" in told


def test_ops_lists_every_operator_or_those_asked_for(capsys):
    assert main(["ops"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == [record.name for record in all_operators()]
    assert main(["ops", "tanh"]) == 0
    assert "tanh" in capsys.readouterr().out
    assert main(["ops", "no such operator"]) == 1
    assert "no operator" in capsys.readouterr().err


def test_plugins_lists_the_built_in_ones(capsys):
    assert main(["plugins"]) == 0
    assert "reference" in capsys.readouterr().out


def test_cache_shows_and_clears_the_folder(capsys, tmp_path):
    from metafuse.runtime.compile_cache import CompileCache

    with flag_scope(cache_dir=tmp_path / "cache"):
        CompileCache().store("compiler", ["source"], b"binary" * 1000)
        assert main(["cache"]) == 0
        told = capsys.readouterr().out
        assert f"folder: {tmp_path / 'cache'}" in told
        assert "files: 2" in told
        assert "size: 6." in told
        assert main(["cache", "--clear"]) == 0
        assert CompileCache().size() == 0
        assert CompileCache().lookup("compiler", "source") is None


def test_flags_lists_every_setting_with_its_value(capsys):
    with flag_scope(debug=4):
        assert main(["flags"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == list(SETTINGS)
    assert ["debug", "4"] in rows


def test_version_and_wrong_command_lines(capsys):
    import metafuse

    assert main(["version"]) == 0
    told = capsys.readouterr().out
    assert f"metafuse {metafuse.__version__}, Python 3." in told
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == told
    recording = "compiled" if hot.compiled is not None else f"Python ({hot.absence})"
    assert f"recording and evaluation: {recording}\n" in told
    with pytest.raises(SystemExit) as wrong:
        main(["no-such-command"])
    assert wrong.value.code == 2


def _hook(answer):
    def metafuse_commands():
        return answer() if callable(answer) else answer

    return metafuse_commands


# -- commands of plugins -------------------------------------------------------------------------------------------------
@pytest.fixture
def plugins(monkeypatch):
    """Sets the plugins of this process: ``plugins(name=what its hook answers, or a function that does)``."""

    def use(**answers):
        points = []
        for name, answer in answers.items():
            module = types.ModuleType(f"made_up_{name}")

            module.metafuse_commands = hookimpl(_hook(answer))
            monkeypatch.setitem(sys.modules, module.__name__, module)
            points.append(EntryPoint(name, module.__name__, "metafuse"))
        found = Plugins(points)
        monkeypatch.setattr(registry(), "plugins", found)
        return found

    return use


def greet(words):
    if words[:1] == ["--fail"]:
        raise ArgumentError("[greet] nobody is here")
    print("hello", *words)
    return 3


GREET = Command("greet", "Greet somebody.", greet)


def test_a_plugin_adds_a_command(capsys, plugins):
    plugins(friendly=[GREET])
    assert main(["greet", "you", "--loudly", "-h"]) == 3
    assert capsys.readouterr().out == "hello you --loudly -h\n"
    assert main(["greet", "--fail"]) == 1
    assert capsys.readouterr().err == "error: [greet] nobody is here\n"
    with pytest.raises(SystemExit) as told:
        main(["--help"])
    assert told.value.code == 0
    assert "greet     Greet somebody." in capsys.readouterr().out


def test_plugins_are_looked_for_only_where_their_commands_may_be_meant(capsys, plugins):
    asked = []
    plugins(watching=lambda: asked.append(1) or [GREET])
    for words in (["version"], ["flags"], ["cache"]):
        assert main(words) == 0
    assert asked == []
    assert main(["greet"]) == 3
    assert asked == [1]


def broken():
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (broken, "raised RuntimeError: out of order"),
        (GREET, "must answer a list of Command, not Command"),
        ([len], "which is no Command"),
        ([Command("--greet", "", greet)], "a command can't be called '--greet'"),
        ([GREET, Command("version", "Mine.", greet)], "the command 'version' is one of metafuse's own"),
    ],
)
def test_a_broken_plugin_breaks_nothing(capsys, plugins, answer, why):
    plugins(bad=answer, good=[Command("wave", "Wave.", lambda words: 0)])
    assert main(["wave"]) == 0
    assert main(["version"]) == 0
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert "Wave." in told
    assert "Greet" not in told
    with pytest.raises(SystemExit) as wrong:
        main(["greet"])
    assert wrong.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("broken plugin: bad (made_up_bad): ")
    assert why in error
    assert main(["plugins"]) == 1
    assert why in capsys.readouterr().out


def test_the_first_of_two_plugins_keeps_a_name(capsys, plugins):
    found = plugins(
        a=[GREET], b=[Command("greet", "Mine.", lambda words: 9), Command("wave", "Wave.", lambda words: 0)]
    )
    assert main(["greet"]) == 3
    (record,) = [r for r in found.records() if r.name == "b"]
    assert record.status == "broken"
    assert record.reason == "the command 'greet' is already brought by the plugin 'a'"
    with pytest.raises(SystemExit):
        main(["wave"])


def test_a_command_of_a_package_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr("metafuse.cli._of_plugins", lambda own: {})
    with pytest.raises(SystemExit):
        main(["convert", "train.py"])
    assert (
        "convert is a command of metafuse-converter: pip install metafuse-converter"
        in capsys.readouterr().err
    )


# -- what is told of the compiled paths ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("found", "why"),
    [
        (ModuleNotFoundError("No module named 'metafuse._compiled'"), "was not built"),
        (
            ImportError("undefined symbol: PyFrame_GetLasti"),
            "can't be loaded: undefined symbol: PyFrame_GetLasti",
        ),
    ],
)
def test_why_the_compiled_paths_are_not_there(monkeypatch, found, why):
    def absent(name):
        raise found

    monkeypatch.setattr(hot, "import_module", absent)
    assert hot._load() == (None, f"metafuse._compiled {why}")
