"""Calls and attributes that need more than a rule's table entry: one function each, named by ``Rule.special``.

What it is: functions ``(rewriter, original, updated, answer) -> expression``. ``original`` is the node as it was, which
may be asked for its kind; ``updated`` has its parts converted already.
What it is not: the ordinary way (``arguments``), which many of these end in by ``rewriter.ordinary``.
Who calls it: ``rewrite``. ``Refused`` says that a call can't be expressed.
"""

from . import arrays, parts, reductions, training
from .registry import SPECIAL

__all__ = ["SPECIAL"]
