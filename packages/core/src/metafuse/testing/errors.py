"""What the kit raises.

What it is: one exception whose message is a whole report: what, where, how to see it again.
What it is not: an error of metafuse.
Who calls it: the levels raise it; ``plugin`` prints it as it is.
"""

from __future__ import annotations

__all__ = ["ConformanceError"]


class ConformanceError(AssertionError):
    """A backend gave something else than the records say."""
