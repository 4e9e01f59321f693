"""Converter: the source of PyTorch programs becomes the source of metafuse programs.

What it is: ``convert_source`` for one text, and ``convert`` and ``pjmap_append`` as the reference API has them.
What it is not: something that programs need when they run: what it writes imports metafuse only.
Who calls it: people, as ``python -m metafuse_converter``; ``jittor.utils.pytorch_converter``.
"""

from .conversion import Conversion, SourceError, convert_source

__all__ = ["Conversion", "SourceError", "convert_source"]
