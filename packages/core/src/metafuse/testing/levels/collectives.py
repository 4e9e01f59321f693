"""Level "collectives": what ranks say to each other, on ranks that are threads of this process.

What it is: the checks of ``testing.collectives`` with one to four ranks, and that a failing rank ends the others.
What it is not: a network; run ``python -m metafuse.testing.collectives`` under a launcher for that.
Who calls it: ``suite``.
"""

from __future__ import annotations

from typing import Any

from ...dist import loopback
from ...ops.creation import array64
from ..collectives import CHECKS
from ..errors import ConformanceError
from ..kit import Kit, level

__all__ = ["test_collectives", "test_failing_rank"]


def _cases() -> list[tuple[str, Any]]:
    counts = dict.fromkeys(CHECKS, (2, 3)) | {"order": (1, 2, 4), "one to one": (2, 4), "helpers": (1, 3, 4)}
    return [(f"{name} {count}", (name, count)) for name in CHECKS for count in counts[name]]


@level("collectives", cases=_cases)
def test_collectives(conformance: Kit, case: tuple[str, int]) -> None:
    """One check on so many ranks."""
    name, count = case
    loopback.run(count, lambda rank: CHECKS[name](conformance))


@level("collectives")
def test_failing_rank(conformance: Kit) -> None:
    """A rank that raises ends the others, and its exception comes out."""

    def main(rank: int) -> None:
        array64([1.0]).mpi_all_reduce().sync()
        if rank == 1:
            raise KeyError("rank 1 is lost")
        array64([1.0]).mpi_all_reduce().sync()
        raise ConformanceError("[loopback] a rank went on without the one that failed")

    try:
        loopback.run(3, main)
    except KeyError as error:
        if "rank 1 is lost" not in str(error):
            raise
    else:
        raise ConformanceError("[loopback] the failure of a rank was lost")
