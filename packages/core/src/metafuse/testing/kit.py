"""The kit: which backend is tested, how thoroughly, and with which random numbers.

What it is: ``Profile`` (quick or deep), ``Kit`` (a backend's name with the profile; every check takes one), and the
decorators by which a test says its level and its cases.
What it is not: a check, or pytest machinery (``plugin``).
Who calls it: every module of ``testing``.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ..backend.contract import AbstractBackend, Tolerance
from ..config import flag_scope
from ..graph.node import state
from ..plugins.registry import registry

__all__ = ["LEVELS", "Kit", "Profile", "hosted", "level", "profile_named"]

#: the levels in the order in which they run; a red level skips the later ones
LEVELS = (
    "memory",
    "element-wise",
    "index",
    "reduce",
    "fusion",
    "autograd",
    "library",
    "code op",
    "collectives",
)

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Profile:
    """How thoroughly to test: ``ci`` is quick and always draws the same, ``deep`` is long and draws from ``seed``."""

    name: str
    deep: bool
    seed: int
    #: whole random graphs, and random calls of element-wise operators
    graphs: int
    calls: int


def profile_named(name: str, seed: int | None = None) -> Profile:
    """The profile ``ci`` or ``deep``; a deep one without a seed makes one up (it is printed in the report's header)."""
    if name == "ci":
        return Profile("ci", False, 0 if seed is None else seed, graphs=12, calls=40)
    if name == "deep":
        made = int.from_bytes(os.urandom(4), "little") if seed is None else seed
        return Profile("deep", True, made, graphs=200, calls=1000)
    raise ValueError(f"[conformance] profile must be 'ci' or 'deep', got {name!r}")


@dataclass(frozen=True)
class Kit:
    """A backend under test.

    Example:
        >>> kit = Kit("reference", profile_named("ci"))
        >>> kit.backend.name, kit.supports("float64")
        ('reference', True)
    """

    name: str
    profile: Profile = field(default_factory=lambda: profile_named("ci"))

    @property
    def backend(self) -> AbstractBackend:
        """The instance under test."""
        return registry().backend(self.name)

    def supports(self, dtype: str) -> bool:
        """Whether the backend declares ``dtype``."""
        return dtype in self.backend.capabilities.dtypes

    def tolerance(self, dtype: str) -> Tolerance:
        """How exact the backend says it is; integers and bool are exact."""
        return self.backend.capabilities.tolerance.get(dtype, Tolerance(0.0, 0.0))

    def random(self, *key: object) -> np.random.Generator:
        """Random numbers that depend on the profile's seed and on ``key`` only."""
        return np.random.default_rng([self.profile.seed, zlib.crc32(repr(key).encode())])

    @contextmanager
    def active(self) -> Iterator[Kit]:
        """Compute on this backend inside. What an earlier, failed check left pending does not run here."""
        state.pending = []
        with flag_scope(backend=self.name, verify=1):
            try:
                yield self
            finally:
                state.pending = []


@contextmanager
def hosted(backend: AbstractBackend) -> Iterator[None]:
    """Make an instance that no plugin brings usable under its name inside (sabotaged backends, backends in the making)."""
    table = registry()
    with table.hosting(backend):
        yield


def level(name: str, cases: Callable[[], Sequence[tuple[str, Any]]] | None = None) -> Callable[[F], F]:
    """Say to which level a test belongs; ``cases`` answers (id, value) pairs, asked for when tests are collected, each of
    which is handed to the test as its argument ``case``."""
    if name not in LEVELS:
        raise ValueError(f"[conformance] level must be one of {', '.join(LEVELS)}, got {name!r}")

    def mark(function: F) -> F:
        function.metafuse_level = name  # type: ignore[attr-defined]
        function.metafuse_cases = cases  # type: ignore[attr-defined]
        return function

    return mark
