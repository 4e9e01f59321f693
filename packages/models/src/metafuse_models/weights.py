"""Weights of a new network: where ``pretrained`` leads, and what is refused.

What it is: the reading of ``pretrained`` of every constructor, and the table of weight files by constructor name.
What it is not: a download service: no weights come with this package; ``register_weights`` tells it of some.
Who calls it: every constructor; users call ``register_weights``.

Names and shapes of parameters are torchvision's, so weights written there can be used here and the other way round.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from metafuse.data.download import fetch
from metafuse.errors import ArgumentError
from metafuse.nn.module import Module
from metafuse.nn.state import load as read

__all__ = ["Source", "register_weights", "with_weights"]

#: Where downloaded files are kept, unless the environment variable METAFUSE_MODELS says otherwise.
FOLDER = Path("~/.cache/metafuse/models")

Network = TypeVar("Network", bound=Module)


class Source(NamedTuple):
    """A weight file: ``place`` is a path, or an address whose file has this MD5 sum."""

    place: str
    md5: str = ""


_SOURCES: dict[str, Source] = {}


def register_weights(name: str, place: str | os.PathLike[str], md5: str = "") -> None:
    """Let ``pretrained=True`` of the constructor ``name`` load ``place``: a file that ``metafuse.load`` reads (``.pth``,
    ``.safetensors``, ``.npz`` ...), or an address and the file's ``md5``.

    Example:
        >>> import metafuse_models as models
        >>> models.register_weights("resnet18", "/data/resnet18.npz")
    """
    text = os.fspath(place)
    if "://" in text and not md5:
        raise ArgumentError(
            f"[register_weights] the address {text!r} needs the md5 of its file, so that damage is noticed"
        )
    _SOURCES[name] = Source(text, md5)


def with_weights(name: str, network: Network, pretrained: Any, optional: Sequence[str] = ()) -> Network:
    """``network`` with the weights that ``pretrained`` names.

    Args:
        name: the constructor's name, for messages and the table of sources.
        pretrained: ``False``; a path of a file that ``metafuse.load`` reads; names mapped to arrays; ``True``: what
            ``register_weights`` was told.
        optional: beginnings of names that a file may have and the network need not (auxiliary heads).

    Errors: ``ArgumentError`` if there is nothing to load or it is for another network. Nothing is changed then.
    """
    if pretrained is False or pretrained is None:
        return network
    given = pretrained if isinstance(pretrained, Mapping) else read(_path(name, pretrained))
    own = network.state_dict()
    extra = [key for key in given if key not in own and not key.endswith("num_batches_tracked")]
    unknown = [key for key in extra if not key.startswith(tuple(optional))]
    missing = [key for key in own if key not in given]
    if missing or unknown:
        raise ArgumentError(
            f"[{name}] these are the weights of another network: {_some('missing', missing)}"
            f"{'; ' if missing and unknown else ''}{_some('unknown', unknown)}"
        )
    network.load_state_dict({key: value for key, value in given.items() if key in own})
    return network


def _path(name: str, pretrained: Any) -> str:
    if isinstance(pretrained, (str, os.PathLike)):
        return os.fspath(pretrained)  # type: ignore[arg-type]
    if pretrained is not True:
        raise ArgumentError(
            f"[{name}] pretrained must be True, False, a path or a mapping, got {type(pretrained).__name__}"
        )
    source = _SOURCES.get(name)
    if source is None:
        raise ArgumentError(
            f"[{name}] no weights are known for pretrained=True; give pretrained='weights.npz' or a state dict, or "
            f"tell metafuse_models.register_weights({name!r}, ...) where they are"
        )
    if "://" not in source.place:
        return source.place
    folder = Path(os.environ.get("METAFUSE_MODELS") or FOLDER).expanduser()
    return str(fetch([source.place], folder / f"{name}-{source.md5[:8]}.npz", source.md5))


def _some(what: str, names: list[str]) -> str:
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"{what} {shown}" if names else ""
