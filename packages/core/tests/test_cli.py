"""The command line prints what it promises and its exit codes mean something."""

from __future__ import annotations

import pytest

from metafuse.cli import main, table
from metafuse.config import SETTINGS, flag_scope
from metafuse.ops.registry import all_operators


def test_table_aligns_columns():
    assert table([("a", "bcd"), ("abc", "d")], ("x", "y")) == "x    y\na    bcd\nabc  d"
    assert table([]) == ""


def test_backends_lists_reference_and_the_default(capsys):
    assert main(["backends"]) == 0
    told = capsys.readouterr().out
    assert "reference  usable" in told
    assert "\ndefault: " in told
    assert "compiler: g++" in told


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
    assert f"metafuse {metafuse.__version__}, Python 3." in capsys.readouterr().out
    with pytest.raises(SystemExit) as wrong:
        main(["no-such-command"])
    assert wrong.value.code == 2
