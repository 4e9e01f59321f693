"""Scripts as users of the reference API write them run unchanged, and compute what they should."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(autouse=True)
def _settings():
    """Scripts change settings for the rest of their process."""
    with flag_scope(log_silent=0, use_cuda=0, lazy_execution=1):
        yield


def run(name):
    """The variables that a script leaves behind."""
    return runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")


def test_every_script_has_a_test():
    text = Path(__file__).read_text(encoding="utf-8")
    assert [p.stem for p in sorted(SCRIPTS.glob("*.py")) if f'"{p.stem}' not in text] == []


@pytest.mark.slow
def test_digits_are_learned(capsys):
    end = run("train_digits")
    assert end["accuracy"] > 0.9
    assert end["losses"][-1] < 0.3 * end["losses"][0]
    assert "Train epoch: 2 [4/8]\tLoss: 0." in capsys.readouterr().out


@pytest.mark.slow
def test_two_optimizers_of_a_gan_do_not_disturb_each_other(capsys):
    end = run("gan")
    assert np.linalg.norm(end["center"] - [2.0, -1.0]) < 1.0
    assert capsys.readouterr().out.count("G loss") == 3


@pytest.mark.slow
def test_an_autoencoder_with_a_function_of_its_own():
    end = run("vae")
    assert end["difference"] < 1e-5
    assert end["history"][-1] < 0.2 * end["history"][0]


@pytest.mark.compiler
def test_nearest_neighbours_in_inline_code():
    end = run("knn_code")
    np.testing.assert_array_equal(end["neighbours"], end["expected"])
    np.testing.assert_allclose(end["product"].numpy(), end["points"][0] * end["points"][1], rtol=1e-6)
    np.testing.assert_array_equal(end["da"].numpy(), end["points"][1])
    np.testing.assert_array_equal(end["db"].numpy(), end["points"][0])


def test_layers_from_meta_operators():
    end = run("reindex_convolution")
    assert max(end["conv_error"], end["grad_error"]) < 1e-4
    assert end["pool_error"] == 0
    assert end["matmul_error"] < 1e-5


@pytest.mark.slow
def test_a_text_is_learned(capsys):
    end = run("lstm_text")
    assert end["losses"][-1] < 0.4 * end["losses"][0]
    assert end["written"].startswith("a small")
    assert len(end["written"]) == 27


def test_hooks_and_files():
    end = run("hooks_and_files")
    assert end["seen"] == {"shape": (3, 8), "before": (3, 8)}
    np.testing.assert_allclose(end["halved"].numpy(), 0.5 * end["plain"].numpy(), rtol=1e-6)
    assert end["names"] == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert end["checkpoint"]["epoch"] == 3
    assert end["same"]
    assert end["goes_on"]
    assert np.allclose(end["third"](end["x"]).numpy(), end["y"].numpy())


def test_learning_rates():
    end = run("schedules")
    assert end["step"] == [1.0, 1.0, 0.1, 0.1]
    assert end["multi"] == [1.0, 0.5, 0.5, 0.25]
    assert end["cosine"] == [1.0, 0.8536, 0.5, 0.1464]
    assert end["exponential"] == [1.0, 0.5, 0.25]
    assert end["linear"] == [0.5, 0.3333, 0.25]
    assert end["groups"] == [0.1, 0.01]
    assert end["reduced"] == pytest.approx(0.1)


def test_an_optimizer_of_ones_own():
    end = run("own_optimizer")
    assert end["losses"][-1] < 0.1 * end["losses"][0]
    np.testing.assert_allclose(end["own"], end["built_in"], rtol=1e-5)
    assert end["still_trainable"]


def test_a_script_for_several_ranks_runs_alone():
    end = run("several_ranks")
    assert end["mpi_world_size"] == 1
    assert end["is_main"]
    assert end["final"] < 0.2
    assert end["logged"] == [f"loss {end['final']:.5f}"]


@pytest.mark.slow
def test_a_transformer_with_einops():
    end = run("transformer")
    assert end["losses"][-1] < 0.5 * end["losses"][0]
    assert end["heads"].shape == (2, 3, 1, 16)
    assert end["pool_error"] == 0


@pytest.mark.slow
def test_a_network_is_fine_tuned():
    end = run("fine_tune")
    assert end["losses"][-1] < 0.5 * end["losses"][0]
    assert end["unchanged"]
    assert len(end["learned"]) == 2
    assert end["answers"].shape == (6,)


def test_everyday_idioms():
    end = run("everyday")
    assert end["single"] == [1]
    assert end["total"].item() == 21
    assert [str(kind) for kind in end["kinds"]] == ["int32", "float32", "float32", "float32", "float16"]
    assert end["is_float"]
    assert end["position"].tolist() == [2, 2]
    assert end["value"].tolist() == [3, 6]
    assert (end["order"].tolist(), end["sorted_values"].tolist()) == ([1, 2, 0], [1, 2, 3])
    assert end["a"].tolist() == [[1, 12, 10], [0, 0, 7]]
    assert end["rows"].tolist() == [0]
    assert end["clipped"].tolist() == [1.5, 2, 2.5]
    assert [h.shape for h in end["halves"]] == [(2, 3), (2, 3)]
    assert end["picked"].tolist() == [[1, 3], [4, 4]]
    assert end["grid"].shape == (3, 16, 16)
    assert end["trainable"] == ["0.weight"]
    assert not end["frozen"]
    assert end["eager"] == 12
    assert (end["first"].item(), end["second"].item()) == (12, 12)
    np.testing.assert_allclose(end["slope"].numpy(), [-51, 50], rtol=1e-5)
    assert end["square"].tolist() == [1, 4, 9]
    assert end["square_slope"].tolist() == [2, 4, 6]
    assert isinstance(end["b"], mf.Var)


def test_a_script_in_a_process_of_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import jittor as jt\nprint((jt.array([1, 2, 3]) * 2).sum())\njt.flags.use_cuda = 1\n")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path, env=os.environ,
    )  # fmt: skip
    assert "12" in done.stdout
    assert done.returncode == 1
    assert "BackendUnavailable" in done.stderr
    assert "'cuda' is not installed" in done.stderr
