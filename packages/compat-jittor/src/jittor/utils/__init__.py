"""``jittor.utils``: a place for ``tracer``."""

from .._follow import follow as _follow

__getattr__, __dir__ = _follow(__name__)
