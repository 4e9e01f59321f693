"""The command line, and the reference API's ``convert`` and ``pjmap_append``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from metafuse import cli
from metafuse_converter import pjmap
from metafuse_converter.cli import main

PROGRAM = "import torch\nprint(torch.cat([a, b]))  # both\n"
PARTLY = "import torch\nprint(torch.stft(x))\n"


def test_a_file_is_printed_and_told_about(tmp_path, capsys):
    path = tmp_path / "train.py"
    path.write_text(PARTLY)
    assert main([str(path)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("import metafuse as mf\n")
    assert f"{path}:2: torch.stft: " in err
    assert "1 files, 1 of them with PyTorch; 1 places not converted, 0 files unreadable" in err


def test_a_folder_is_converted_into_another(tmp_path, capsys):
    source = tmp_path / "project"
    (source / "inner").mkdir(parents=True)
    (source / "train.py").write_text(PROGRAM)
    (source / "inner" / "other.py").write_text("# -*- coding: latin-1 -*-\nword = 'ä'\n", encoding="latin-1")
    (source / "broken.py").write_text("def (:\n")
    out = source / "converted"
    assert main([str(source), "-o", str(out), "--target", "jittor"]) == 1
    assert (out / "train.py").read_text() == "import jittor as jt\nprint(jt.concat([a, b]))  # both\n"
    assert "ä" in (out / "inner" / "other.py").read_text(encoding="latin-1")
    assert not (out / "broken.py").exists()
    assert "broken.py:1: this is no Python" in capsys.readouterr().err
    (source / "broken.py").unlink()
    assert main([str(source), "-o", str(out)]) == 0


def test_check_writes_nothing(tmp_path, capsys):
    path = tmp_path / "train.py"
    path.write_text(PROGRAM)
    assert main([str(path), "--check"]) == 0
    assert capsys.readouterr().out == ""
    assert path.read_text() == PROGRAM


def test_diff_shows_what_changes(tmp_path, capsys):
    path = tmp_path / "train.py"
    path.write_text(PROGRAM.rstrip("\n"))
    assert main([str(path), "--diff"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        f"--- {path}", f"+++ {path} (converted)", "@@ -1,2 +1,2 @@", "-import torch", "-print(torch.cat([a, b]))  # both",
        "\\ No newline at end of file", "+import metafuse as mf", "+print(mf.concat([a, b]))  # both",
        "\\ No newline at end of file",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [path]


def test_report_says_what_became_of_each_name(tmp_path, capsys):
    path = tmp_path / "train.py"
    path.write_text(PARTLY + "x = torch.cat([torch.cat([a, b]), c])\ntorch.set_num_threads(3)\n")
    out = tmp_path / "out.py"
    assert main([str(path), "--report", "-o", str(out)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: 4 uses of PyTorch's names, 3 converted",
        "  torch.stft: not converted: has no counterpart (line 2)",
        "  torch.cat: renamed: concat (line 3)",
        "  torch.set_num_threads: rewritten: None (line 4)",
        "  line 4: note: torch.set_num_threads has no meaning in metafuse",
    ]
    assert out.read_text().startswith("import metafuse as mf\n")
    assert main([str(tmp_path), "--report"]) == 1  # a folder needs no -o then


# -- as a command of metafuse ------------------------------------------------------------------------------------------
@pytest.fixture
def installed(monkeypatch):
    """The plugin, whether or not this distribution is installed."""
    from importlib.metadata import EntryPoint

    from metafuse.plugins.manager import Plugins
    from metafuse.plugins.registry import registry

    point = EntryPoint("converter", "metafuse_converter.plugin", "metafuse")
    monkeypatch.setattr(registry(), "plugins", Plugins([point]))


@pytest.mark.usefixtures("installed")
def test_metafuse_has_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "Convert PyTorch programs to metafuse." in capsys.readouterr().out
    path = tmp_path / "train.py"
    path.write_text(PROGRAM)
    assert cli.main(["convert", str(path)]) == 0
    assert capsys.readouterr().out == "import metafuse as mf\nprint(mf.concat([a, b]))  # both\n"
    assert cli.main(["convert", "--diff", str(path)]) == 0
    assert "+import metafuse as mf" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["convert", "--help"])
    assert "usage: metafuse convert" in capsys.readouterr().out


def test_libcst_waits_for_the_first_conversion():
    code = (
        "import sys, metafuse_converter.plugin as p\n"
        "assert [c.name for c in p.metafuse_commands()] == ['convert']\nassert 'libcst' not in sys.modules\n"
        "from metafuse_converter import convert_source\nassert 'libcst' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_wrong_command_lines(tmp_path, capsys):
    assert main([str(tmp_path / "nothing.py")]) == 2
    assert main([str(tmp_path)]) == 2
    assert "needs -o" in capsys.readouterr().err


def test_mappings_of_ones_own():
    mapping = {
        "pytorch": {"args": "size, bias=True"}, "jittor": {"module": "nn", "name": "Linear", "args": "in_features, out_features, bias=True"},
        "links": {"size": "in_features"}, "extras": {"out_features": "4"},
    }  # fmt: skip
    text = "from torch import nn\nlayer = nn.Square(8, bias=False)\n"
    assert "nn.Linear(8, bias=False, out_features=4)" in pjmap.convert(text, {"Square": mapping})
    assert "torch.nn.Square(8, bias=False)" in pjmap.convert(text)
    with pytest.raises(ValueError, match="mapping of 'Square' lacks"):
        pjmap.convert(text, {"Square": {}})


def test_what_is_unsupported():
    assert "AdaptiveLogSoftmaxWithLoss" in pjmap.unsupport
    with pytest.raises(
        RuntimeError, match="FractionalMaxPool2d has no counterpart in 'nn.FractionalMaxPool2d"
    ):
        pjmap.raise_unsupport("FractionalMaxPool2d", "nn.FractionalMaxPool2d(2)")
    assert pjmap.Converter()("import torch\n") == "import jittor as jt\n"
