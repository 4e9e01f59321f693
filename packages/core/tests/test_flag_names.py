"""Flags of the reference API: all are accepted, and each works or says that it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import metafuse as mf
from metafuse import config
from metafuse.config import ALIASES, SETTINGS, flag_scope, flags
from metafuse.errors import ArgumentError
from metafuse.flag_names import FLAGS
from metafuse.graph.node import state


def test_every_name_of_the_reference_api_is_known():
    found = [
        p
        for p in Path(__file__).resolve().parents[3].glob("**/_names.json")
        if ".nox" not in p.parts and "build" not in p.parts
    ]
    if not found:
        pytest.skip("the list of names is not in this tree")
    names = json.loads(found[0].read_text())["jittor.flags"]
    assert len(names) > 70
    assert [n for n in names if n not in SETTINGS and n not in ALIASES and n not in FLAGS] == []


def test_no_name_has_two_meanings_and_all_are_explained():
    assert not set(FLAGS) & (set(SETTINGS) | set(ALIASES))
    assert set(ALIASES.values()) <= set(SETTINGS)
    assert all(row.doc and row.effect for row in FLAGS.values())


@pytest.mark.parametrize("name", [n for n, row in FLAGS.items() if not row.works and row.read is None])
def test_without_an_effect_it_is_said_once_and_the_value_is_kept(name, monkeypatch, capsys):
    monkeypatch.setattr(config, "_noticed", set())
    monkeypatch.setattr("metafuse.flag_names._values", {})
    default = FLAGS[name].default
    assert getattr(flags, name) == default
    setattr(flags, name, default)
    assert capsys.readouterr().err == ""
    other = default + 1 if isinstance(default, int) else [70] if isinstance(default, list) else "text"
    setattr(flags, name, other)
    setattr(flags, name, other)
    assert capsys.readouterr().err.count(f"flags.{name} has no effect here") == 1
    assert getattr(flags, name) == other


def test_no_grad():
    x = mf.array([1.0])
    with flag_scope(no_grad=1):
        assert flags.no_grad == 1 and not (x * 2).requires_grad
        with mf.enable_grad():
            assert flags.no_grad == 0
    assert state.grad_enabled and (x * 2).requires_grad


def test_levels_of_the_log_follow_debug():
    for level, debug in ((0, 0), (1, 1), (9, 1), (10, 2), (100, 3), (1000, 4)):
        with flag_scope(log_v=level):
            assert flags.debug == debug and flags.log_v <= max(level, 0)
    with flag_scope(debug=3):
        assert flags.log_v == 100
    assert flags.debug == 0


def test_the_cache_and_other_names_of_settings(tmp_path):
    verify = flags.verify
    with flag_scope(cache_path=str(tmp_path)):
        assert flags.cache_dir == flags.cache_path == str(tmp_path)
    with flag_scope(check_graph=1, enable_tuner=0):
        assert (flags.verify, flags.library) == (1, 0)
    assert (flags.verify, flags.library, flags.use_device, flags.use_rocm) == (verify, 1, 0, 0)


def test_programs_are_counted():
    before = flags.exec_called
    with flag_scope(backend="reference"):
        (mf.ones(2) + 1).sync()
    assert flags.exec_called == before + 1


def test_values_are_checked():
    for name, value in (("nthread", "4"), ("log_file", 3), ("compile_options", 5), ("cuda_archs", "86")):
        with pytest.raises(ArgumentError, match=rf"\[flags\] {name} can't be"):
            setattr(flags, name, value)
        with pytest.raises(ArgumentError, match=f"{name} can't be"):
            flag_scope(**{name: value})
    with pytest.raises(ArgumentError, match="no flag 'nthreads'"):
        flags.nthreads = 3
