"""Records that carry samples: each call against NumPy. Their level follows from what they are composed of.

What it is: one test for every record with samples, whichever level it belongs to.
What it is not: gradients (``autograd``).
Who calls it: the levels "index", "reduce" and "fusion".
"""

from __future__ import annotations

from collections.abc import Callable

from ...dtypes import DTYPES
from ...ops.registry import Operator, Sample, all_operators
from ..compare import Case, run
from ..kit import Kit
from ..strategies import dtypes_for, sample_arguments, sample_tensors

__all__ = ["check_samples", "is_possible", "pick", "sampled"]

#: category -> level; operators of every other category are compositions
_LEVELS = {
    "creation": "index",
    "shape": "index",
    "indexing": "index",
    "meta": "index",
    "reduce": "reduce",
    "sort": "reduce",
}


def sampled(level: str) -> Callable[[], list[tuple[str, Operator]]]:
    """The records with samples and a NumPy meaning that belong to ``level``; asked when tests are collected."""

    def found() -> list[tuple[str, Operator]]:
        return [
            (record.name, record)
            for record in all_operators()
            if record.samples and record.numpy is not None and _LEVELS.get(record.category, "fusion") == level
        ]

    return found


def is_possible(kit: Kit, record: Operator) -> bool:
    """Whether ``record`` is no conversion to a type that the backend does not have."""
    return record.name not in DTYPES or kit.supports(record.name)


def check_samples(kit: Kit, record: Operator) -> None:
    """Every sample in the usual dtypes, the first one in all that it allows (in the deep profile: all in all)."""
    if not is_possible(kit, record):
        return
    cases = []
    for number, sample in enumerate(record.samples):
        for dtype in _choices(kit, sample, everything=kit.profile.deep or number == 0):
            random = kit.random("sample", record.name, number, dtype)
            args, kwargs = sample_arguments(sample, lambda kind, d=dtype: pick(kit, kind, d), random)  # type: ignore[misc]
            cases.append(Case.of(record, args, kwargs))
    run(kit, cases)


def _choices(kit: Kit, sample: Sample, everything: bool) -> list[str]:
    """Dtypes with which to fill in the kinds of ``sample``."""
    kinds = {t.dtype for t in sample_tensors(sample)}
    found = list(dict.fromkeys(d for kind in sorted(kinds) for d in dtypes_for(kind, kit)))
    usual = [d for d in found if d in ("float32", "int32")] or found[:1]
    if any(not dtypes_for(kind, kit) for kind in kinds):
        return []
    return found if everything else usual


def pick(kit: Kit, kind: str, wanted: str) -> str:
    """``wanted`` where ``kind`` allows it, else the kind's usual dtype."""
    allowed = dtypes_for(kind, kit)
    if wanted in allowed:
        return wanted
    return next((d for d in ("float32", "int32", "bool") if d in allowed), allowed[0])
