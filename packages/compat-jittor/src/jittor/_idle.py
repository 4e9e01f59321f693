"""Functions of the reference API that have nothing to do here.

What it is: names that scripts may call.
What it is not: anything that works.
Who calls it: users, as ``jittor.clean_graph`` and so on.
"""

from __future__ import annotations

__all__ = ["clean_graph", "cleanup", "clear_trace_data", "migrate_all_to_cpu"]


def clean_graph() -> None:
    """Accepted without effect: what is recorded goes with the Vars that hold it."""


def cleanup() -> None:
    """Accepted without effect: backends end with the process."""


def clear_trace_data() -> None:
    """Accepted without effect: no trace is collected."""


def migrate_all_to_cpu() -> None:
    """Accepted without effect: a backend keeps values where it computes."""
