"""``jittor.vcompiler``: functions that are recorded once and replayed."""

from .vcompiler import build

__all__ = ["build"]
