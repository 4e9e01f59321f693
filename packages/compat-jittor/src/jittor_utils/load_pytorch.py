"""``jittor_utils.load_pytorch``: files of ``torch.save``, read without PyTorch."""

from __future__ import annotations

import os
from typing import Any

import metafuse

__all__ = ["load_pytorch"]


def load_pytorch(fn_name: str | os.PathLike[str]) -> Any:
    """What is in the file: see ``metafuse.load``."""
    return metafuse.load(fn_name)
