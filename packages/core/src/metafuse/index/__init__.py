"""The index language: ``"i0*stride - pad"`` as data.

What it is: text to expression (``parse``), algebra (``simplify``), ranges (``bounds``), values (``evaluate``).
What it is not: tied to reindex; it knows axes, names and extras only.
Who calls it: ``ops`` parses, ``passes`` reason, tests evaluate.
"""

from .bounds import bounds
from .evaluate import evaluate
from .parse import parse_condition, parse_index
from .simplify import Affine, as_affine, simplify

__all__ = ["Affine", "as_affine", "bounds", "evaluate", "parse_condition", "parse_index", "simplify"]
