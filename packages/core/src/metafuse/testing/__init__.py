"""The conformance kit: what tells a backend author that a backend is right.

What it is: tests generated from the operator records, for any backend; and ``check_grads``, for anybody's functions.
What it is not: part of computing: nothing else in metafuse imports it. The tests need ``pip install metafuse[testing]``.
Who calls it: test files, by ``from metafuse.testing.suite import *``; see ``README.md`` here.
"""

from .gradients import check_grads

__all__ = ["check_grads"]
