"""The command line, and the reference API's ``convert`` and ``pjmap_append``."""

from __future__ import annotations

import pytest

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
