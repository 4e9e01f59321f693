"""Which backends there are, which of them work here, and the one to compute on.

What it is: a lazy table from a backend's name to its descriptor, its usability and its only instance.
What it is not: a device abstraction (``runtime``) or the search for plugins (``plugins.manager``).
Who calls it: ``runtime`` for the backend of a program; the command line and the conformance kit for the list.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .. import config
from ..backend.contract import CONTRACT_VERSION, AbstractBackend, Descriptor
from ..config import flags, notice
from ..errors import BackendUnavailable, PluginError
from .manager import FAILURES, PluginRecord, Plugins

__all__ = ["BackendStatus", "Registry", "registry"]

#: What is said of a backend that programs ask for by name and that is absent.
ADVICE = {
    "cpu": "pip install metafuse-backend-cpu",
    "cuda": "no release of metafuse has one yet; set flags.use_cuda = 0",
}


@dataclass(frozen=True)
class BackendStatus:
    """A backend that a plugin named. ``reason`` says in one sentence why it is not usable, else it is empty."""

    descriptor: Descriptor
    usable: bool
    reason: str
    plugin: str


class Registry:
    """The backends of this process. Make one of your own only in tests; others call ``registry()``.

    Example:
        >>> registry().backend("reference").name
        'reference'
    """

    def __init__(self, plugins: Plugins | None = None) -> None:
        self.plugins = plugins or Plugins()
        self._descriptors: dict[str, tuple[Descriptor, PluginRecord]] | None = None
        self._reasons: dict[str, str] = {}  # name -> why unusable, "" where usable; filled by probing
        self._instances: dict[str, AbstractBackend] = {}
        self._default: AbstractBackend | None = None
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            # Another thread of the parent may hold the lock at the fork; no such thread exists in the child.
            os.register_at_fork(after_in_child=self._renew_lock)

    def backends(self) -> list[BackendStatus]:
        """All backends found, the preferred ones first; probes each one once."""
        with self._lock:
            return [self._status(name) for name in self._by_priority()]

    def backend(self, name: str) -> AbstractBackend:
        """The instance of the backend called ``name``; it is made once.

        Errors: ``BackendUnavailable`` if it is not installed or not usable here; the message says which, and why.
        """
        instance = self._instances.get(name)
        if instance is not None:
            return instance
        with self._lock:
            status = self.require(name)
            if name not in self._instances:
                self._instances[name] = self._create(status.descriptor)
            return self._instances[name]

    def require(self, name: str) -> BackendStatus:
        """The status of the backend called ``name``; ``BackendUnavailable`` unless it is usable."""
        with self._lock:
            if name not in self._found():
                raise BackendUnavailable(self._absence(name))
            status = self._status(name)
            if not status.usable:
                raise BackendUnavailable(f"[backend] {name!r} is installed but not usable: {status.reason}")
            return status

    def default_backend(self) -> AbstractBackend:
        """Where to compute: ``flags.backend`` if set, CUDA if ``flags.use_cuda``, else the usable backend of the
        highest priority. Backends of negative priority are used only when they are named."""
        name = flags.backend or ("cuda" if flags.use_cuda else "")
        if name:
            return self.backend(name)
        default = self._default
        if default is None:
            with self._lock:
                default = self._default = self._default or self._choose()
        return default

    @contextmanager
    def hosting(self, backend: AbstractBackend) -> Iterator[None]:
        """Inside, ``backend`` is known under its name without a plugin (backends in the making, wrappers in tests).

        Errors: ``BackendUnavailable`` if the name is taken.
        """
        name = backend.name
        with self._lock:
            if name in self._found():
                raise BackendUnavailable(f"[backend] {name!r} exists already; give the instance another name")
            descriptor = Descriptor(name, type(backend).__name__, lambda: backend, lambda: None, priority=-1)
            self._found()[name] = (descriptor, PluginRecord(name, type(backend).__module__, "", "loaded"))
            self._instances[name] = backend
        try:
            yield
        finally:
            with self._lock:
                for table in (self._found(), self._instances, self._reasons):
                    table.pop(name, None)  # type: ignore[attr-defined]

    # -- below: with the lock held ------------------------------------------------------------------------------
    def _choose(self) -> AbstractBackend:
        refused: list[str] = []
        for name in self._by_priority():
            descriptor, _ = self._found()[name]
            status = self._status(name)
            if descriptor.priority < 0:
                continue
            if status.usable:
                try:
                    chosen = self.backend(name)
                except BackendUnavailable as error:
                    self._reasons[name] = str(error)
                    refused.append(f"{name!r} can't be used: {error}")
                    continue
                if name == "reference":
                    self._explain_reference(refused)
                return chosen
            refused.append(f"{name!r} can't be used: {status.reason}")
        raise BackendUnavailable(
            "[backend] no backend is usable: " + "; ".join(refused or ["none is installed"])
        )

    def _explain_reference(self, refused: list[str]) -> None:
        """One clear notice where the slow backend was taken only for want of a better one."""
        if refused:
            why = "; ".join(refused)
        elif "cpu" not in self._found():
            missing = [r for r in self.plugins.records() if r.status != "loaded"]
            why = "; ".join(f"the plugin {r.name!r} is {r.status}: {r.reason}" for r in missing)
            why = why or "no compiling backend is installed; pip install metafuse-backend-cpu adds one"
        else:
            return
        notice(f"computing on the slow NumPy reference backend: {why}")

    def _found(self) -> dict[str, tuple[Descriptor, PluginRecord]]:
        if self._descriptors is None:
            found: dict[str, tuple[Descriptor, PluginRecord]] = {}
            for record, descriptors in self.plugins.call("metafuse_backends"):
                try:
                    self._add(found, record, descriptors)
                except PluginError as error:
                    self.plugins.mark_broken(record, str(error))
            self._descriptors = found
        return self._descriptors

    @staticmethod
    def _add(
        found: dict[str, tuple[Descriptor, PluginRecord]], record: PluginRecord, descriptors: object
    ) -> None:
        if not isinstance(descriptors, (list, tuple)):
            raise PluginError(
                f"metafuse_backends() must answer a list of Descriptor, not {type(descriptors).__name__}"
            )
        for descriptor in descriptors:
            if not isinstance(descriptor, Descriptor):
                raise PluginError(f"metafuse_backends() answered {descriptor!r}, which is no Descriptor")
            if descriptor.name in found:
                owner = found[descriptor.name][1].name
                raise PluginError(f"backend {descriptor.name!r} is already brought by the plugin {owner!r}")
        found.update((descriptor.name, (descriptor, record)) for descriptor in descriptors)

    def _by_priority(self) -> list[str]:
        found = self._found()
        return sorted(found, key=lambda name: (-found[name][0].priority, name))

    def _status(self, name: str) -> BackendStatus:
        descriptor, record = self._found()[name]
        if name not in self._reasons:
            self._reasons[name] = _probe(descriptor)
        reason = self._reasons[name]
        return BackendStatus(descriptor, not reason, reason, record.name)

    @staticmethod
    def _create(descriptor: Descriptor) -> AbstractBackend:
        try:
            instance = descriptor.create()
        except FAILURES as error:
            raise BackendUnavailable(
                f"[backend] {descriptor.name!r} could not start: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(instance, AbstractBackend):
            raise BackendUnavailable(
                f"[backend] {descriptor.name!r} made {instance!r}, which is no AbstractBackend"
            )
        return instance

    def _absence(self, name: str) -> str:
        for record in self.plugins.records():
            if record.name == name:  # a plugin of that name is there, but brought nothing
                return f"[backend] {name!r} is not available: its plugin is {record.status}: {record.reason}"
        if name in ADVICE:
            return f"[backend] {name!r} is not installed; {ADVICE[name]}"
        return f"[backend] there is no backend {name!r}; installed: {', '.join(self._by_priority())}"

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()


def _probe(descriptor: Descriptor) -> str:
    """Why ``descriptor`` is not usable here, or an empty string."""
    if descriptor.contract_version != CONTRACT_VERSION:
        which = descriptor.distribution or descriptor.name
        return (
            f"{which} was written for version {descriptor.contract_version} of the backend contract and this "
            f"metafuse has version {CONTRACT_VERSION}; install matching versions"
        )
    try:
        return descriptor.probe() or ""
    except FAILURES as error:
        return f"its probe failed: {type(error).__name__}: {error}"


_registry: Registry | None = None
_registry_lock = threading.Lock()


def registry() -> Registry:
    """The registry of this process, made on first use."""
    global _registry
    if _registry is None:
        with _registry_lock:
            if _registry is None:
                _registry = Registry()
    return _registry


def _check_backend(name: str) -> None:
    if name:
        registry().require(name)


def _check_cuda(value: int) -> None:
    if value:
        registry().require("cuda")


config.watch("backend", _check_backend)
config.watch("use_cuda", _check_cuda)
