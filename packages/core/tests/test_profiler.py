"""The profiler: what it counts, its table, scopes and marks; and captured logs."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import profiler
from metafuse.config import flag_scope, flags, notice
from metafuse.debug.launches import Repeats
from metafuse.errors import ArgumentError
from metafuse.profiler import HEADER
from metafuse.runtime import launching


@pytest.fixture(autouse=True)
def reference_backend(tmp_path):
    mf.sync_all()
    with flag_scope(backend="reference", cache_dir=str(tmp_path)):
        yield
        mf.sync_all()
    profiler.stop()
    assert launching.observers == [] and (Repeats.warmup, Repeats.rerun) == (0, 0)


def array(*shape: int) -> mf.Var:
    return mf.array(np.ones(shape, np.float32)).sync()


def test_the_table_adds_launches_up():
    x = array(100, 10)
    with mf.profile_scope() as table:
        for _ in range(3):
            (x * 2).exp().sync()
        y = x.sum(1)
    assert table[0] == list(HEADER)
    assert len(table) == 3 and all(
        len(row) == len(HEADER) and all(type(c) is str for c in row) for row in table
    )
    rows = {row[0]: dict(zip(HEADER, row, strict=True)) for row in table[1:]}
    (name,) = [n for n in rows if "exp" in n]
    row = rows[name]
    assert row["Count"] == "3" and row["FileName"].startswith(name)
    low, mean, high, total = (float(row[k]) for k in ("MinTime", "AvgTime", "MaxTime", "TotalTime"))
    assert 0 < low <= mean <= high <= total
    assert mean * 3 == pytest.approx(total, abs=3)
    assert float(row["Input"]) == pytest.approx(3 * 4000 / total * 1e9, rel=1e-3)
    assert float(row["Output"]) == float(row["Input"]) and row["InOut"] == "0"
    assert float(row["Compute"]) == pytest.approx(3 * 1000 / total * 1e9, rel=1e-3)
    assert [float(r[3]) for r in table[1:]] == sorted((float(r[3]) for r in table[1:]), reverse=True)
    assert "TotalTime" in str(table) and name in str(table)
    assert y.numpy()[0] == 10


def test_what_was_pending_before_is_not_counted_and_nothing_is_afterwards():
    x = array(4)
    before = x + 1
    with mf.profile_scope() as table:
        assert before._node.buffer is not None
        inside = x * 2
    (x - 1).sync()
    assert [row[2] for row in table[1:]] == ["1"] and inside._node.buffer is not None


def test_repeated_runs_leave_results_alone():
    x = array(50)
    with mf.profile_scope(warmup=2, rerun=3) as table:
        y = (x + 1).sync()
        z = mf.array([1.0]).reindex_reduce("add", [3], ["i0"])
        z.sync()
    assert y.numpy().tolist() == [2.0] * 50 and z.numpy().tolist() == [1.0, 0.0, 0.0]
    assert {row[2] for row in table[1:] if row[0].startswith("add")} == {"4"}


def test_code_of_users_runs_once():
    calls = []

    def forward(np, data):
        calls.append(1)
        data["outputs"][0][:] = 3

    with mf.profile_scope(rerun=5) as table:
        y = mf.numpy_code([2], "float32", [], forward)
    assert y.numpy().tolist() == [3.0, 3.0] and calls == [1]
    assert table[1][0] == "numpy_code" and "test_profiler.py" in table[1][1]


def test_start_stop_report_and_its_flag():
    x = array(10)
    assert profiler.report() == [list(HEADER)] or not profiler.running()
    profiler.start()
    (x + 1).sync()
    x.sum().sync()
    profiler.stop()
    (x * 5).sync()
    assert len(profiler.report()) == 3
    names = [row[0] for row in profiler.report("Name")[1:]]
    assert names == sorted(names)
    with pytest.raises(ArgumentError, match="sort_key must be one of Name"):
        profiler.report("Speed")
    with pytest.raises(ArgumentError, match="warmup"):
        profiler.start(-1)
    flags.profiler_enable = 1
    assert profiler.running() and flags.profiler_enable == 1
    (x + 1).sync()
    flags.profiler_enable = 0
    assert not profiler.running() and len(profiler.report()) == 2
    with flag_scope(profiler_enable=1):
        (x + 1).sync()
    assert not profiler.running()


def test_scopes_may_be_nested_and_take_flags():
    x = array(4)
    verify = flags.verify
    with mf.profile_scope(verify=1) as outer:
        assert flags.verify == 1
        (x + 1).sync()
        with mf.profile_scope() as inner:
            (x * 2).sync()
    assert flags.verify == verify
    assert (len(outer), len(inner)) == (3, 2)
    with pytest.raises(ZeroDivisionError), mf.profile_scope() as failed:
        (x + 1).sync()
        1 / 0  # noqa: B018
    assert len(failed) == 2


def test_a_decorated_function_is_measured():
    @mf.profile_scope()
    def work():
        return (array(3) + 1).sync()

    assert work().numpy().tolist() == [2.0, 2.0, 2.0]


def test_shapes_may_have_rows_of_their_own():
    x, y = array(4), array(6)
    with mf.profile_scope(profiler_record_shape=1) as table:
        (x + 1).sync()
        (y + 1).sync()
    assert sorted(row[0] for row in table[1:]) == ["add[4]", "add[6]"]


def test_marks():
    x = array(10)
    with mf.profile_scope() as table:
        for _ in range(2):
            with mf.profile_mark("part"):
                y = x + 1
                z = (y * y).sum()
        w = x * 3
    (row,) = [r for r in table if r[1] == "profile_mark"]
    assert row[0] == "part" and row[2] == "2"
    with mf.profile_mark("outside"):  # nobody measures: nothing is evaluated either
        v = x + 5
    assert v._node.buffer is None and w._node.buffer is not None and z.item() == 40


# -- logs -------------------------------------------------------------------------------------------------------------
def test_logs_are_captured(capsys):
    with mf.log_capture_scope(debug=2) as lines:
        (array(3) + 1).sync()
        notice("something that happens once in this test of captured logs")
        with mf.log_capture_scope(debug=0) as inner:
            (array(3) * 2).sync()
    assert inner == [] and flags.debug == 0
    assert {"level", "name", "msg"} == set(lines[0])
    assert [line["name"] for line in lines if line["level"] == "i"][-1] == "launch"
    assert [line["msg"] for line in lines if line["level"] == "w"] == [
        "something that happens once in this test of captured logs"
    ]
    with mf.log_capture_scope(log_v=100) as lines:
        (array(3) - 5).sync()
    assert any(line["name"].startswith("pass ") for line in lines)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_logs_may_go_to_a_file(tmp_path, capsys):
    path = tmp_path / "log.txt"
    with flag_scope(log_file=str(path), debug=2):
        (array(3) + 7).sync()
    assert "metafuse [launch]" in path.read_text() and capsys.readouterr().err == ""
