"""The names of the reference API: modules import, names lead to metafuse, parameters are the reference's, reasons are told."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import jittor as jt
import jittor_utils
import metafuse as mf
from jittor import _follow, _table

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted(_table.module_names())


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("api_coverage", ROOT / "tools" / "api_coverage.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["api_coverage"] = module
    spec.loader.exec_module(module)
    return module


# -- modules ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MODULES)
def test_module_imports_and_lists_only_what_it_has(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert [n for n in dir(module) if not hasattr(module, n)] == []
    parent, _, own = name.rpartition(".")
    assert not parent or getattr(importlib.import_module(parent), own) is module


def test_statements_that_scripts_begin_with():
    import jittor.nn as layers
    import jittor.transform as trans
    from jittor import Module, dataset, init, lr_scheduler, nn, optim
    from jittor.dataset import Dataset
    from jittor.dataset.mnist import MNIST
    from jittor.models import resnet
    from jittor.models.resnet import resnet18

    assert layers is nn is jt.nn
    assert trans is jt.transform
    assert (Module, nn.Module, nn.Conv) == (mf.Module, mf.nn.Module, mf.nn.Conv)
    assert (Dataset, dataset.MNIST, MNIST) == (mf.data.Dataset, mf.data.MNIST, mf.data.MNIST)
    assert resnet.resnet18 is resnet18 is mf.models.resnet18
    assert (init.gauss_, optim.Adam, lr_scheduler.StepLR) == (
        mf.init.gauss_,
        mf.optim.Adam,
        mf.lr_scheduler.StepLR,
    )


def test_names_are_metafuses_own():
    assert jt.Var is jt.core.Var is mf.Var
    assert jt.flags is mf.flags
    assert jt.NanoString is jt.dtype is type(jt.ones(1).dtype)
    assert isinstance(jt.ones(2).shape, jt.NanoVector)
    assert jt.misc.make_grid is mf.make_grid
    assert jt.pool.Pool is mf.nn.Pool
    assert jt.__version__.startswith("1.3.11")
    assert (jt.rank, jt.world_size, jt.in_mpi) == (0, 1, False)


def test_a_name_follows_metafuse_also_where_it_appears_later(monkeypatch):
    monkeypatch.setattr(mf.nn, "FreshLayer", object, raising=False)
    assert jt.nn.FreshLayer is object
    del vars(jt.nn)["FreshLayer"]


def test_star_imports():
    found: dict[str, object] = {}
    exec("from jittor.nn import *\nfrom jittor.models import *\nfrom jittor import *", found)
    assert found["Conv"] is mf.nn.Conv
    assert found["resnet50"] is mf.models.resnet50
    assert found["matmul"] is mf.matmul


def test_modules_and_layers_can_be_pickled_by_name():
    assert pickle.loads(pickle.dumps(jt.nn.Conv)) is mf.nn.Conv


def test_import_is_light_and_silent():
    code = (
        "import sys, metafuse; before = set(sys.modules); import jittor; "
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith(('jittor', 'metafuse'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    extra = eval(done.stdout)
    assert {m.partition(".")[0] for m in extra} <= set(sys.stdlib_module_names)


# -- what is not there -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("jittor", "cub_cumsum", "one vendor's hardware"),
        ("jittor", "RingBuffer", "an internal"),
        ("jittor.ccl", "ccl_2d", "label components"),
        ("jittor.nccl_ops", "nccl_all_reduce", "one vendor's library"),
        ("jittor_utils", "run_cmd", "own development"),
        ("jittor_utils.lock", "lock_scope", "own development"),
    ],
)
def test_what_is_not_offered_says_why(module, name, words):
    with pytest.raises(AttributeError, match=f"{name}.*{words}.*docs/compat.md"):
        getattr(importlib.import_module(module), name)
    with pytest.raises(ImportError, match=f"{name}.*{words}.*docs/compat.md"):
        exec(f"from {module} import {name}")


def test_the_converter_is_a_distribution_of_its_own(monkeypatch):
    from jittor.utils.pytorch_converter import convert

    assert "jt.concat([a, b])" in convert("import torch\nprint(torch.cat([a, b]))\n")
    monkeypatch.setitem(sys.modules, "metafuse_converter.pjmap", None)
    monkeypatch.delitem(
        vars(importlib.import_module("jittor.utils.pytorch_converter")), "convert", raising=False
    )
    with pytest.raises(ImportError, match="pip install metafuse-converter"):
        exec("from jittor.utils.pytorch_converter import convert")


def test_names_that_nobody_has():
    with pytest.raises(AttributeError, match="module 'jittor' has no attribute 'nothing'"):
        _ = jt.nothing
    with pytest.raises(ImportError, match="cannot import name 'nothing' from 'jittor.nn'"):
        exec("from jittor.nn import nothing")
    with pytest.raises(ModuleNotFoundError, match="No module named 'jittor.nothing'"):
        importlib.import_module("jittor.nothing")
    assert not hasattr(jittor_utils, "ones")
    assert not hasattr(jt.transform, "Conv")


def test_rules_of_the_table_all_apply_to_something():
    entries = [(m, n) for m, names in _table.names().items() for n in names]
    idle = [p for p in _table.NOT_OFFERED if not any(_table.re.search(p, f"{m}:{n}") for m, n in entries)]
    assert idle == []


def test_what_is_found_beside_the_framework():
    from jittor import compile_extern

    assert jt.has_cuda is False
    assert jt.cudnn is jt.compile_extern.nccl_ops is jt.mkl is None
    assert compile_extern.mpi is jt.mpi
    assert jt.mpi.world_rank is mf.mpi.world_rank
    assert compile_extern.mpi_ops.mpi_all_reduce is mf.mpi_all_reduce
    assert compile_extern.inside_mpi() is False
    assert set(dir(compile_extern)) == compile_extern.NAMES
    with pytest.raises(AttributeError, match="nothing"):
        _ = compile_extern.nothing


# -- the table -----------------------------------------------------------------------------------------------------------
def test_nearly_everything_is_there(tool, capsys):
    assert tool.main.__module__ == "api_coverage"
    shares = tool.report(list(tool.look(tool.GOALS)), None, missing=True, untested=False)
    text = capsys.readouterr().out
    assert set(tool.GOALS) <= set(shares)
    assert [m for m in tool.GOALS if shares[m] < 0.95] == [], text


def test_parameters_are_the_references(tool):
    assert tool.differences(tool.look()) == []


def test_exceptions_from_that_are_all_needed(tool, monkeypatch):
    monkeypatch.setattr(tool, "KNOWN", {})
    told = " ".join(tool.differences(tool.look()))
    names = dict.fromkeys(tool.KNOWN)
    assert [k for k in names if f"{k.split()[0]}(" not in told] == []


def test_the_tool_notices_a_difference(tool):
    def moved(a, b=2):
        return a, b

    def check(form):
        return tool._unlike(_table._form(form), list(tool.inspect.signature(moved).parameters.values()))

    assert check("a, b=2") is None
    assert check("a, b=3") == ("b", "defaults to 2")
    assert check("b, a") == ("b", "stands at 1")
    assert check("a, c") == ("c", "is no parameter")
    assert check("a=1, b=2") == ("a", "has no default")


def test_functions_that_are_classes_there():
    x = jt.array([2.5])
    expected = mf.lgamma(x).item()
    assert [f(x).item() for f in (jt.lgamma, jt.lgamma.apply, jt.lgamma(), jt.math_util.lgamma)] == [
        expected
    ] * 4
    assert jt.math_util.digamma.apply(x).item() == mf.digamma(x).item()


def test_other_names_of_parameters_are_understood():
    assert jt.cast(jt.array([1.5]), op="int32").item() == 1
    assert jt.broadcast(x=jt.ones(2), y=jt.ones([3, 2])).shape == (3, 2)
    assert jt.ops.array(obj=[1, 2]).tolist() == [1, 2]
    assert jt.contrib.setitem(jt.zeros(2), 0, value=5).tolist() == [5, 0]
    assert [v.tolist() for v in jt.index([2], "int64")] == [[0, 1]]


def test_lines_of_the_log():
    assert jittor_utils.LOG is jt.LOG
    with jt.log_capture_scope(log_v=10) as lines:
        jt.LOG.i("one", 2)
        jt.LOG.vv("three")
        jt.LOG.vvv("never")
        with pytest.raises(RuntimeError, match="four"):
            jt.LOG.f("four")
    assert [(line["level"], line["msg"]) for line in lines] == [("i", "one 2"), ("i", "three"), ("f", "four")]
    with jt.log_capture_scope(log_silent=1) as lines:
        jt.LOG.w("nothing")
        jt.LOG.e("error")
    assert [line["msg"] for line in lines] == ["error"]


def test_pickles_by_their_other_names(tmp_path):
    path = str(tmp_path / "file.pkl")
    jt.safepickle({"a": [1, 2]}, path)
    assert jt.safeunpickle(path) == {"a": [1, 2]}


def test_states():
    assert _follow.state("jittor", "matmul") == (_follow.WORKS, "")
    assert _follow.state("jittor.flags", "use_cuda") == (_follow.WORKS, "")
    state, why = _follow.state("jittor.flags", "gdb_path")
    assert state == _follow.IDLE
    assert "debugger" in why
    assert _follow.state("jittor", "cub_cumsum")[0] == _follow.ABSENT
    assert _follow.state("jittor_utils.clean_cache", "clean_cuda") == (
        _follow.IDLE,
        "no toolkit is ever downloaded",
    )


# -- small modules -------------------------------------------------------------------------------------------------------
def test_depthwise_convolution_is_a_grouped_one():
    import numpy as np

    from jittor.depthwise_conv import DepthwiseConv

    x, w = jt.randn(2, 3, 7, 6), jt.randn(3, 1, 3, 3)
    expected = mf.nn.conv2d(x, w, None, 2, 1, 1, 3)
    np.testing.assert_array_equal(DepthwiseConv(2, 1)(x, w).numpy(), expected.numpy())
    assert DepthwiseConv.apply(x, w).shape == (2, 3, 5, 4)


def test_built_functions_and_their_fallback():
    from jittor.vcompiler import build

    calls = {2: 0, 3: 0}

    def double(x):
        calls[x.shape[0]] += 1
        return x * 2

    built = build(double, fallback_func=lambda x: x.shape[0] > 2)
    assert [built(jt.ones(n)).sum().item() for n in (2, 3) * 8] == [4, 6] * 8
    assert calls[3] == 8
    assert build(double)(jt.ones(2)).tolist() == [2, 2]


@pytest.mark.parametrize(
    "name", [m.name for p in (jt, jittor_utils) for m in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")]
)
def test_examples_in_the_text(name):
    if not name.endswith("__main__"):
        assert (
            doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed
            == 0
        )
