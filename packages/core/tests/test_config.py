"""Settings: environment, validation, scopes, notices."""

from __future__ import annotations

import pytest

import metafuse as mf
from metafuse import config
from metafuse.config import SETTINGS, Flags, cache_directory, flag_scope, flags, notice, observe, watch
from metafuse.errors import ArgumentError


def test_values_start_from_the_environment_when_first_read(monkeypatch):
    fresh = Flags()
    monkeypatch.delenv("METAFUSE_VERIFY", raising=False)
    monkeypatch.setenv("METAFUSE_DEBUG", "3")
    monkeypatch.setenv("METAFUSE_BACKEND", " reference ")
    assert (fresh.debug, fresh.backend, fresh.verify) == (3, "reference", SETTINGS["verify"].default)
    monkeypatch.setenv("METAFUSE_DEBUG", "1")
    assert fresh.debug == 3


@pytest.mark.parametrize("text", ["yes", "7", "-1", "1.5"])
def test_an_illegal_environment_variable_is_named(monkeypatch, text):
    monkeypatch.setenv("METAFUSE_DEBUG", text)
    with pytest.raises(ArgumentError, match=r"METAFUSE_DEBUG can't be .*legal: 0 to 5"):
        Flags().debug  # noqa: B018


@pytest.mark.parametrize(
    ("name", "value"),
    [("debug", 6), ("debug", "1"), ("debug", None), ("verify", 2), ("cache_limit_bytes", -1), ("backend", 3)],
)
def test_an_illegal_value_is_refused_and_changes_nothing(name, value):
    fresh = Flags()
    before = getattr(fresh, name)
    with pytest.raises(ArgumentError, match=rf"\[flags\] {name} can't be"):
        setattr(fresh, name, value)
    assert getattr(fresh, name) == before


def test_booleans_become_integers():
    fresh = Flags()
    fresh.verify = True
    assert fresh.verify == 1
    assert type(fresh.verify) is int


def test_an_unknown_flag_names_near_ones():
    with pytest.raises(ArgumentError, match="did you mean debug"):
        flags.debgu = 1
    with pytest.raises(ArgumentError, match=r"no flag 'zzz'; known: debug, "):
        flags.zzz  # noqa: B018
    assert not hasattr(flags, "zzz")
    with pytest.raises(ArgumentError, match="can't be deleted"):
        del flags.debug


def test_scope_restores_also_after_an_exception():
    before = flags.debug
    with pytest.raises(KeyError), flag_scope(debug=5, lazy_execution=0):
        assert (flags.debug, flags.lazy_execution) == (5, 0)
        raise KeyError
    assert (flags.debug, flags.lazy_execution) == (before, 1)


def test_scope_sets_nothing_if_one_value_is_illegal():
    before = flags.debug
    with pytest.raises(ArgumentError, match="verify can't be 9"):
        flag_scope(debug=5, verify=9)
    with pytest.raises(ArgumentError, match="no flag"):
        flag_scope(debug=5, verfy=1)
    assert flags.debug == before


def test_scope_decorates_a_recursive_function():
    seen = []

    @flag_scope(debug=2)
    def count(n):
        seen.append(flags.debug)
        return n if n == 0 else count(n - 1)

    before = flags.debug
    assert count(2) == 0
    assert seen == [2, 2, 2]
    assert flags.debug == before


def test_a_watcher_can_refuse_a_value(monkeypatch):
    monkeypatch.setattr(config, "_watchers", {})

    def refuse_three(value):
        if value == 3:
            raise ArgumentError("not three")

    watch("debug", refuse_three)
    before = flags.debug
    with pytest.raises(ArgumentError, match="not three"), flag_scope(verify=0, debug=3):
        pass
    assert flags.debug == before


def test_an_observer_hears_the_value_and_every_change(monkeypatch):
    monkeypatch.setattr(config, "_observers", {})
    heard = []
    before = flags.debug
    observe("debug", heard.append)
    with flag_scope(debug=4):
        flags.debug = 2
    assert heard == [before, 4, 2, before]
    with pytest.raises(ArgumentError, match="no flag"):
        observe("debgu", heard.append)


def test_without_lazy_execution_operators_run_when_they_are_called():
    with flag_scope(lazy_execution=0):
        x = mf.array([1.0, 2.0])
        y = x * 2 + 1
        assert y._node.buffer is not None
        assert mf.grad((y * y).sum(), x).tolist() == [12.0, 20.0]
    z = x * 3
    assert z._node.buffer is None
    assert z.tolist() == [3.0, 6.0]


def test_cache_directory_follows_flag_then_xdg(monkeypatch, tmp_path):
    with flag_scope(cache_dir=tmp_path / "mine"):
        assert cache_directory() == tmp_path / "mine"
    with flag_scope(cache_dir=""):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_directory() == tmp_path / "metafuse"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says to ignore it
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_directory() == tmp_path / ".cache" / "metafuse"


def test_a_notice_is_printed_once_unless_silent(capsys):
    with flag_scope(log_silent=1):
        notice("test: one")
    assert capsys.readouterr().err == ""
    with flag_scope(log_silent=0):
        notice("test: one")
        notice("test: one")
    assert capsys.readouterr().err == "metafuse: test: one\n"


def test_every_setting_is_documented_and_its_default_is_legal():
    for setting in SETTINGS.values():
        assert setting.doc.endswith(".")
        assert setting.checked(setting.default, setting.name) == setting.default
