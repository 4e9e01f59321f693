"""``jittor_utils.save_pytorch``: files for ``torch.load``, written without PyTorch."""

from __future__ import annotations

import os
from typing import Any

from metafuse.io.pytorch_write import save_pytorch as _save

__all__ = ["save_pytorch"]


def save_pytorch(path: str | os.PathLike[str], obj: Any) -> None:
    """Write Vars, arrays and containers of them so that ``torch.load(path, weights_only=True)`` reads them."""
    _save(path, obj)
