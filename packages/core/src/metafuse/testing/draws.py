"""Hypothesis inside a test: many draws in one check.

What it is: ``drawn_checks``.
What it is not: a global profile; nothing of hypothesis is set for other tests.
Who calls it: levels that let chance choose.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from .kit import Kit

__all__ = ["drawn_checks"]


def drawn_checks(kit: Kit, examples: int, check: Any, strategy: Any) -> None:
    """Run ``check`` on ``examples`` draws: the same ones in the quick profile, from the profile's seed in the deep one."""
    options = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not kit.profile.deep,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    tried = options(given(strategy)(check))
    (seed(kit.profile.seed)(tried) if kit.profile.deep else tried)()
