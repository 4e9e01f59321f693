"""Plugins and backends: found lazily, isolated from each other, explained when they are absent."""

from __future__ import annotations

import sys
import threading
import types
from importlib.metadata import EntryPoint

import pytest

from metafuse import config
from metafuse.backend.contract import CONTRACT_VERSION, Descriptor
from metafuse.config import flag_scope, flags
from metafuse.errors import BackendUnavailable
from metafuse.plugins.hookspecs import hookimpl
from metafuse.plugins.manager import Plugins
from metafuse.plugins.registry import Registry, registry
from metafuse.reference.plugin import metafuse_backends as reference_backends

REFERENCE = reference_backends()[0]


def entry_point(monkeypatch, name, backends=None, **members):
    """An entry point to a module made here; ``backends`` is what its hook answers or a function that does."""
    module = types.ModuleType(f"made_up_{name}")
    if backends is not None:

        def metafuse_backends():
            return backends() if callable(backends) else backends

        module.metafuse_backends = hookimpl(metafuse_backends)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return EntryPoint(name, module.__name__, "metafuse")


def descriptor(name, *, priority=50, why=None, create=None, version=CONTRACT_VERSION):
    return Descriptor(
        name, "made up", create or REFERENCE.create, lambda: why, priority, version, f"d-{name}"
    )


def make(*entry_points):
    return Registry(Plugins(entry_points))


def statuses(found):
    return {record.name: (record.status, record.reason) for record in found.plugins.records()}


def test_nothing_is_loaded_before_it_is_asked_for(monkeypatch):
    calls = []
    point = entry_point(monkeypatch, "chip", lambda: calls.append(1) or [descriptor("chip")])
    found = make(point)
    assert calls == []
    found.backends()
    found.backends()
    assert calls == [1]


def test_the_usable_backend_of_highest_priority_is_the_default(monkeypatch):
    made = []

    def create():
        made.append(1)
        return REFERENCE.create()

    found = make(
        entry_point(monkeypatch, "slow", [descriptor("slow", priority=20)]),
        entry_point(monkeypatch, "fast", [descriptor("fast", priority=70, create=create)]),
        entry_point(monkeypatch, "broken", [descriptor("broken", priority=90, why="no such chip here")]),
    )
    with flag_scope(backend="", use_cuda=0):
        assert found.default_backend() is found.backend("fast")
    assert found.default_backend() is found.default_backend()
    assert made == [1]
    names = [status.descriptor.name for status in found.backends()]
    assert names.index("broken") < names.index("fast") < names.index("slow") < names.index("reference")


def test_a_backend_of_negative_priority_is_used_only_when_named(monkeypatch, capsys):
    found = make(entry_point(monkeypatch, "shy", [descriptor("shy", priority=-1)]))
    with flag_scope(backend="", use_cuda=0):
        assert found.default_backend().name == "reference"
    assert found.backend("shy") is not found.backend("reference")


def test_an_unusable_backend_says_why(monkeypatch):
    found = make(
        entry_point(monkeypatch, "chip", [descriptor("chip", why="its driver is missing")]),
        entry_point(monkeypatch, "old", [descriptor("old", version=CONTRACT_VERSION + 1)]),
    )
    with pytest.raises(BackendUnavailable, match="'chip' is installed but not usable: its driver is missing"):
        found.backend("chip")
    with pytest.raises(BackendUnavailable, match=f"d-old was written for version {CONTRACT_VERSION + 1}"):
        found.backend("old")


def test_an_absent_backend_says_how_to_get_it():
    found = make()
    with pytest.raises(BackendUnavailable, match="'cpu' is not installed; pip install metafuse-backend-cpu"):
        found.backend("cpu")
    with pytest.raises(BackendUnavailable, match="'cuda' is not installed; no release of metafuse has one"):
        found.backend("cuda")
    with pytest.raises(BackendUnavailable, match="no backend 'cdua'; installed: reference"):
        found.backend("cdua")


def fails():
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("backends", "reason"),
    [
        (fails, "raised RuntimeError: boom"),
        (7, "must answer a list of Descriptor, not int"),
        (["x"], "answered 'x', which is no Descriptor"),
        ([REFERENCE], "already brought by the plugin 'reference'"),
    ],
)
def test_a_plugin_with_a_wrong_hook_is_reported_and_the_others_work(monkeypatch, backends, reason):
    found = make(
        entry_point(monkeypatch, "bad", backends), entry_point(monkeypatch, "good", [descriptor("good")])
    )
    assert found.backend("good") is not None
    status, why = statuses(found)["bad"]
    assert status == "broken"
    assert reason in why


def test_a_plugin_that_can_not_be_imported_is_reported(monkeypatch):
    @hookimpl
    def metafuse_backend():  # misspelled
        return []

    found = make(
        EntryPoint("gone", "made_up_gone", "metafuse"),
        entry_point(monkeypatch, "typo", metafuse_backend=metafuse_backend),
        entry_point(monkeypatch, "good", [descriptor("good")]),
        EntryPoint("good", "made_up_other", "metafuse"),
    )
    assert found.backend("good") is not None
    assert "No module named 'made_up_gone'" in statuses(found)["gone"][1]
    assert "metafuse_backend, which this metafuse does not know" in statuses(found)["typo"][1]
    assert ("broken", "the name is taken by made_up_good") in statuses(found).values()
    with pytest.raises(BackendUnavailable, match="its plugin is broken: ModuleNotFoundError"):
        found.backend("gone")


def test_a_plugin_that_ends_the_process_is_reported(monkeypatch, tmp_path):
    (tmp_path / "made_up_ending.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    found = make(
        EntryPoint("ending", "made_up_ending", "metafuse"),
        entry_point(monkeypatch, "answering", lambda: sys.exit(3)),
        entry_point(monkeypatch, "probing", [Descriptor("probing", "made up", lambda: None, sys.exit)]),
        entry_point(monkeypatch, "starting", [descriptor("starting", create=sys.exit)]),
        entry_point(monkeypatch, "good", [descriptor("good")]),
    )
    assert found.backend("good") is not None
    assert statuses(found)["ending"] == ("broken", "SystemExit: 3")
    assert statuses(found)["answering"] == ("broken", "metafuse_backends() raised SystemExit: 3")
    for name in ("probing", "starting"):
        with pytest.raises(BackendUnavailable, match="SystemExit"):
            found.backend(name)


def test_a_distribution_that_can_not_be_read_hides_no_other(monkeypatch, tmp_path):
    for name, text in (("broken", b"\xff"), ("whole", b"[metafuse]\nwhole = made_up_whole\n")):
        folder = tmp_path / f"made_up_{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-up-{name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_bytes(text)
    (tmp_path / "made_up_whole.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    found = {record.name: (record.status, record.distribution) for record in Plugins().records()}
    assert found["whole"] == ("loaded", "made-up-whole 1.0")


def test_a_probe_or_constructor_that_raises_makes_the_backend_unusable(monkeypatch, capsys):
    probing = Descriptor("probing", "made up", REFERENCE.create, fails, 90)
    found = make(
        entry_point(monkeypatch, "probing", [probing]),
        entry_point(monkeypatch, "starting", [descriptor("starting", create=fails)]),
        entry_point(monkeypatch, "wrong", [descriptor("wrong", create=dict)]),
    )
    with pytest.raises(BackendUnavailable, match="its probe failed: RuntimeError: boom"):
        found.backend("probing")
    with pytest.raises(BackendUnavailable, match="'starting' could not start: RuntimeError: boom"):
        found.backend("starting")
    with pytest.raises(BackendUnavailable, match="made {}, which is no AbstractBackend"):
        found.backend("wrong")
    monkeypatch.setattr(config, "_noticed", set())
    with flag_scope(backend="", use_cuda=0, log_silent=0):
        assert found.default_backend().name == "reference"
    told = capsys.readouterr().err
    assert told.startswith("metafuse: computing on the slow NumPy reference backend: ")
    assert "'probing' can't be used: its probe failed" in told
    assert told.count("\n") == 1


def test_the_reference_backend_alone_comes_with_advice(monkeypatch, capsys):
    monkeypatch.setattr(config, "_noticed", set())
    with flag_scope(backend="", use_cuda=0, log_silent=0):
        assert make().default_backend().name == "reference"
    assert "pip install metafuse-backend-cpu" in capsys.readouterr().err


def test_plugins_can_be_limited_and_traced(monkeypatch, capsys):
    points = [entry_point(monkeypatch, name, [descriptor(name)]) for name in ("one", "two")]
    with flag_scope(plugins="two, three", trace_plugins=1):
        found = make(*points)
        names = {status.descriptor.name for status in found.backends()}
    assert "two" in names
    assert "reference" in names
    assert "one" not in names
    assert statuses(found)["one"] == ("skipped", "not among METAFUSE_PLUGINS")
    assert "metafuse: plugin one (made_up_one): skipped; not among" in capsys.readouterr().err


def test_flags_refuse_a_backend_that_is_not_there():
    before = flags.backend
    with pytest.raises(BackendUnavailable, match="no backend 'cdua'"):
        flags.backend = "cdua"
    assert flags.backend == before
    if "cuda" not in {status.descriptor.name for status in registry().backends()}:
        with pytest.raises(BackendUnavailable, match="'cuda' is not installed"):
            flags.use_cuda = 1
        assert flags.use_cuda == 0


def test_threads_share_one_instance(monkeypatch):
    made = []

    def create():
        made.append(1)
        return REFERENCE.create()

    found = make(entry_point(monkeypatch, "chip", [descriptor("chip", create=create)]))
    barrier = threading.Barrier(8)
    got = []

    def use():
        barrier.wait()
        got.append(found.backend("chip"))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(set(map(id, got))) == 1
