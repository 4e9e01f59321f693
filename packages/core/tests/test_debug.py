"""explain, the debug levels, recorded launches and the list of live arrays: they tell the truth and change nothing."""

from __future__ import annotations

import gc
import inspect
import io
import re
from pathlib import Path

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.debug import display_memory_info, live_arrays, record_launches
from metafuse.graph.node import state
from metafuse.runtime import executor, launching
from metafuse.runtime.kernels import statistics

HERE = Path(__file__).name


@pytest.fixture(autouse=True)
def reference_backend(tmp_path):
    mf.sync_all()
    with flag_scope(backend="reference", cache_dir=str(tmp_path)):
        yield
        mf.sync_all()


def array(*shape: int) -> mf.Var:
    return mf.array(np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 10)


# -- explain ------------------------------------------------------------------------------------------------------
def test_explain_runs_and_consumes_nothing() -> None:
    x = array(4, 5)
    y = (x * 2 + 1).exp()
    other = x - 1
    before = (statistics.programs, statistics.plans, statistics.compilations, [h() for h in state.pending])
    first, second = mf.explain(y), mf.explain(y)
    assert (
        statistics.programs,
        statistics.plans,
        statistics.compilations,
        [h() for h in state.pending],
    ) == before
    assert first == second
    assert y._node.buffer is None and other._node.buffer is None
    np.testing.assert_allclose(y.numpy(), np.exp(x.numpy() * 2 + 1), rtol=1e-6)
    np.testing.assert_allclose(other.numpy(), x.numpy() - 1)


def test_explain_leaves_what_another_thread_records_meanwhile() -> None:
    x = mf.array([1.0, 2.0])
    first, younger = x * 3, x * 4
    met: list[mf.Var] = []

    def recording() -> None:  # stands for a thread whose turn it is while handles are looked at
        met.append(x * 5)

    state.pending.insert(0, recording)
    try:
        mf.explain(first)
        held = [h() for h in state.pending if h is not recording]
    finally:
        state.pending.remove(recording)
    assert [any(v is h for h in held) for v in (first, younger, met[0])] == [True] * 3


def test_explain_agrees_with_what_runs() -> None:
    x = array(8, 6)
    w = array(6, 3)
    y = mf.nn.softmax(mf.matmul(x, w), dim=1)
    text = mf.explain(y)
    y.sync()
    assert text.kernels == tuple(step.kernel.name for step in executor.last_program[0].plan.steps)
    assert text.launches == len(text.kernels) == 2


def test_explain_names_operators_inputs_and_lines() -> None:
    x = array(4, 5)
    line = inspect.currentframe().f_lineno + 1
    y = (x * 2 + 1).exp()
    text = mf.explain(y, source=False)
    graph = text.split("graph\n")[1].split("\n\n")[0]
    rows = [re.split(r"  +", row.strip()) for row in graph.splitlines()]
    assert [row[:4] for row in rows] == [
        ["a0", "array", "float32[4,5]", "stored"],
        ["n0", "multiply", "float32[4,5]", "a0, 2"],
        ["n1", "add", "float32[4,5]", "n0, 1"],
        ["n2", "exp", "float32[4,5]", "n1"],
    ]
    assert all(row[4].endswith(f"{HERE}:{line}") for row in rows[1:])
    assert text.operators == 3
    assert "operators  multiply, add, exp" in text
    assert "source" not in text


def test_explain_shows_sources_loops_and_roles() -> None:
    text = mf.explain(mf.matmul(array(8, 6), array(6, 3)))
    assert "product    batch 1, m 8, n 3, k 6" in text
    assert "outer [8, 3], inner [6], 144 points" in text
    assert "def contract_" in text.split("k0 source")[1]


def test_explain_tells_partial_folds_apart() -> None:
    text = mf.explain(array(1 << 20).exp().sum(), source=False)
    assert text.launches == 2
    assert "operators  the first part of n" in text


def test_explain_of_several_values_and_of_opaque_ones() -> None:
    x = array(4)
    text = mf.explain([x + 1, x * 2], source=False)
    assert text.operators == 2
    coded = mf.numpy_code([4], "float32", [x], lambda np, data: None)
    text = mf.explain(coded)
    assert text.kernels == ("numpy_code",)
    del coded


def test_explain_shows_donated_memory() -> None:
    x = array(1000).sync()
    x.update(x * 2)
    assert "is written over a0 if nobody else holds that" in mf.explain(x, source=False)


def test_explain_of_what_exists_and_of_nonsense() -> None:
    x = array(2, 3)
    assert repr(mf.explain(x)) == "float32[2,3]: stored; nothing to run"
    with pytest.raises(mf.errors.DTypeError, match=r"\[explain\] values\[1\] must be a Var, got int"):
        mf.explain([x, 3])


def test_the_examples_of_the_page_run() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "explain.md"
    space: dict[str, object] = {"__name__": "page"}
    for block in re.findall(
        r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        exec(block, space)
    assert space["text"].launches == 2 or len(space["text"].kernels) == space["text"].launches
    assert space["largest"].nbytes >= 4_000_000


# -- levels -------------------------------------------------------------------------------------------------------
TOPICS = {
    1: ["compile"],
    2: ["run", "launch"],
    3: ["graph", "pass fuse", "pass lower"],
    4: ["source"],
    5: ["assembly"],
}


@pytest.mark.parametrize("level", range(6))
def test_each_level_tells_more(level: int, capfd: pytest.CaptureFixture[str]) -> None:
    x = array(3, 7)
    with flag_scope(debug=level):
        # its own structure per level, so that it is planned, and looked up on disk, each time
        y = x
        for _ in range(level + 1):
            y = (y + x).cos()
        executor.device().kernels.loaded.clear()
        y.sync()
    told = capfd.readouterr().err
    topics = set(re.findall(r"^metafuse \[([\w ]+)\]", told, re.MULTILINE))
    if "cache" in topics:  # an earlier run has compiled it
        topics.add("compile")
    for number, names in TOPICS.items():
        for name in names:
            assert (name in topics) == (level >= number), (name, told)
    if level == 0:
        assert told == ""


def test_timed_launches_compute_the_same() -> None:
    x = array(50, 20)
    plain = mf.nn.softmax(x, dim=1).sum(0).numpy()
    with record_launches() as rows:
        timed = mf.nn.softmax(x, dim=1).sum(0).numpy()
    np.testing.assert_array_equal(plain, timed)
    assert launching.observers == []
    assert [row.name for row in rows] == [step.kernel.name for step in executor.last_program[0].plan.steps]
    assert all(row.seconds > 0 and row.calls == 1 for row in rows)
    assert rows[0].elements == 1000 and rows[0].nbytes >= 8000


# -- memory -------------------------------------------------------------------------------------------------------
def test_live_arrays_have_sizes_names_and_lines() -> None:
    gc.collect()
    before = len(live_arrays())
    x = array(300, 100)
    line = inspect.currentframe().f_lineno + 1
    y = (x + 1).name("sum").sync()
    arrays = live_arrays()
    assert len(arrays) == before + 2
    (made,) = [a for a in arrays if a.name == "sum"]
    assert (made.spec, made.nbytes, made.operator, made.held) == ("float32[300,100]", 120_000, "add", True)
    assert made.origin.endswith(f"{HERE}:{line}")
    out = io.StringIO()
    display_memory_info(file=out)
    assert f"arrays: {before + 2} of " in out.getvalue()
    assert f"{HERE}:{line}" in out.getvalue()
    del x, y
    gc.collect()
    assert len(live_arrays()) == before


def test_what_a_gradient_may_need_is_marked() -> None:
    x = array(40, 10).start_grad()
    y = x.exp().sum().sync()
    unheld = [a for a in live_arrays() if not a.held and a.spec == "float32[40,10]"]
    text = mf.explain(mf.grad(y, x), source=False)
    assert text.launches >= 1
    assert len(unheld) <= 1  # exp is either kept or computed again
