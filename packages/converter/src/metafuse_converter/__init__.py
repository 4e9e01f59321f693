"""Converter: the source of PyTorch programs becomes the source of metafuse programs.

What it is: ``convert_source`` for one text, and ``convert`` and ``pjmap_append`` as the reference API has them.
What it is not: something that programs need when they run: what it writes imports metafuse only.
Who calls it: people, as ``python -m metafuse convert``; ``jittor.utils.pytorch_converter``.

LibCST is imported with the first use, since the plugin (``plugin``) is loaded wherever metafuse looks for plugins.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversion import Conversion, SourceError, convert_source

__all__ = ["Conversion", "SourceError", "convert_source"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import conversion

        return getattr(conversion, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
