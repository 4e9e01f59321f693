"""Finds and loads plugins, one by one, so that a broken one does not hurt the others.

What it is: the list of plugins with what became of each, and the way to call one of their hooks.
What it is not: a registry of backends (``plugins.registry``). Nothing here runs at ``import metafuse``.
Who calls it: ``plugins.registry`` and the command line.

A plugin is a module (or object) named by an entry point of the group ``metafuse``:

    [project.entry-points.metafuse]
    mychip = "metafuse_mychip.plugin"
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import flags

if (
    TYPE_CHECKING
):  # at run time it is imported with the first look-up: it is slow, and most programs need it later
    from importlib.metadata import EntryPoint

__all__ = ["BUILT_IN", "FAILURES", "GROUP", "PluginRecord", "Plugins"]

GROUP = "metafuse"
#: Plugins that come with the core: always loaded, and first.
BUILT_IN = {"reference": "metafuse.reference.plugin", "null": "metafuse.null.plugin"}

#: How code of a plugin fails. That it wants to end the process is its own failure, not the end of the user's program.
FAILURES = (Exception, SystemExit)


@dataclass
class PluginRecord:
    """What is known of one plugin. ``status`` is ``loaded``, ``skipped`` or ``broken``; ``reason`` says why."""

    name: str
    module: str
    distribution: str
    status: str = "skipped"
    reason: str = ""
    plugin: Any = None


@dataclass(frozen=True)
class _Candidate:
    """A plugin that could be loaded; ``load`` imports it."""

    name: str
    module: str
    distribution: str
    load: Callable[[], Any]


class Plugins:
    """All plugins of this process, loaded when first asked for.

    Example:
        >>> plugins = Plugins()
        >>> [record.status for record in plugins.records() if record.name == "reference"]
        ['loaded']
    """

    def __init__(self, entry_points: Iterable[EntryPoint] | None = None) -> None:
        """``entry_points`` replaces the installed ones (for tests)."""
        self._entry_points = entry_points
        self._records: list[PluginRecord] | None = None
        self._manager: Any = None

    def records(self) -> list[PluginRecord]:
        """Every plugin found, with its status; the first call loads them."""
        if self._records is None:
            self._records = self._load()
        return self._records

    def call(self, hook: str) -> list[tuple[PluginRecord, Any]]:
        """What each loaded plugin answers to ``hook``; one that raises becomes broken and is left out."""
        answers: list[tuple[PluginRecord, Any]] = []
        known = [
            record for record in self.records() if record.plugin is not None
        ]  # one may have broken since
        for record in [r for r in known if r.status == "loaded"]:
            others = [other.plugin for other in known if other is not record]
            try:
                results = self._manager.subset_hook_caller(hook, others)()
            except FAILURES as error:
                self.mark_broken(record, f"{hook}() raised {type(error).__name__}: {error}")
                continue
            answers.extend((record, result) for result in results)
        return answers

    def mark_broken(self, record: PluginRecord, reason: str) -> None:
        """Note that ``record`` can't be used and why."""
        record.status, record.reason = "broken", reason
        self._trace(record)

    def _load(self) -> list[PluginRecord]:
        import pluggy

        from . import hookspecs

        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        allowed = {name.strip() for name in flags.plugins.split(",") if name.strip()}
        records: list[PluginRecord] = []
        taken: dict[str, str] = {}
        for candidate in self._candidates():
            if taken.get(candidate.name) == candidate.module:
                continue  # the same distribution seen twice on the path
            record = PluginRecord(candidate.name, candidate.module, candidate.distribution)
            records.append(record)
            if candidate.name in taken:
                self.mark_broken(record, f"the name is taken by {taken[candidate.name]}")
                continue
            taken[candidate.name] = candidate.module
            if allowed and candidate.name not in allowed and candidate.name not in BUILT_IN:
                record.reason = "not among METAFUSE_PLUGINS"
                self._trace(record)
                continue
            self._load_one(record, candidate)
        return records

    def _load_one(self, record: PluginRecord, candidate: _Candidate) -> None:
        try:
            plugin = candidate.load()
            self._manager.register(plugin, candidate.name)
            unknown = _unknown_hooks(self._manager, plugin)
            if unknown:
                self._manager.unregister(plugin)
                raise ValueError(f"it implements {', '.join(unknown)}, which this metafuse does not know")
        except FAILURES as error:
            self.mark_broken(record, f"{type(error).__name__}: {error}")
            return
        record.plugin, record.status = plugin, "loaded"
        self._trace(record)

    def _candidates(self) -> list[_Candidate]:
        built_in = [
            _Candidate(name, module, "metafuse", lambda module=module: importlib.import_module(module))  # type: ignore[misc]
            for name, module in BUILT_IN.items()
        ]
        found = self._entry_points
        if found is None:
            found = _installed()
        installed = [_Candidate(p.name, p.value, _distribution(p), p.load) for p in found]
        return built_in + sorted(installed, key=lambda candidate: (candidate.name, candidate.module))

    @staticmethod
    def _trace(record: PluginRecord) -> None:
        if flags.trace_plugins:
            text = f"metafuse: plugin {record.name} ({record.module}): {record.status}"
            print(f"{text}; {record.reason}" if record.reason else text, file=sys.stderr)


def _installed() -> Iterable[EntryPoint]:
    """The entry points of all installed distributions whose own list of them can be read."""
    from importlib import metadata

    try:
        return metadata.entry_points(group=GROUP)
    except Exception:  # one of them can't be read, whoever's it is
        readable: list[EntryPoint] = []
        for distribution in metadata.distributions():
            with suppress(Exception):
                readable += [point for point in distribution.entry_points if point.group == GROUP]
        return readable


def _distribution(entry_point: EntryPoint) -> str:
    distribution = entry_point.dist
    return f"{distribution.name} {distribution.version}" if distribution is not None else ""


def _unknown_hooks(manager: Any, plugin: object) -> list[str]:
    """Names of hook implementations in ``plugin`` that have no specification: most likely a spelling mistake."""
    names = [caller.name for caller in manager.get_hookcallers(plugin) or ()]
    return [name for name in names if not getattr(manager.hook, name).has_spec()]
