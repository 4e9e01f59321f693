"""The reference API's converter: ``convert(code, ex_pjmaps=None)``, ``pjmap_append``, ``Converter``, ``raise_unsupport``.

What it is: these names, over ``convert_source`` with the target ``jittor``, and the users' own mappings.
What it is not: the table that comes with this package.
Who calls it: users, as ``metafuse_converter.pjmap`` or ``jittor.utils.pytorch_converter``.

A mapping is a dictionary ``{"pytorch": {"args": "a, b=1"}, "jittor": {"module": "nn", "name": "F", "args": "x, b=1"},
"links": {"a": "x"}, "extras": {"c": "2"}, "delete": ["b"]}`` under the last part of a name of PyTorch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from metafuse.errors import ArgumentError

from . import lookup
from .conversion import convert_source
from .lookup import Answer, parse
from .rules import Rule

__all__ = ["Converter", "convert", "pjmap_append", "raise_unsupport", "unsupport"]

Mapping_ = Mapping[str, Any]

#: mappings that were added for the rest of the process
_added: dict[str, Mapping_] = {}


def pjmap_append(
    pytorch_func_name: str,
    pytorch_args: str,
    jittor_func_module: str,
    jittor_func_name: str,
    jittor_args: str,
    extras: Mapping[str, Any] | None = None,
    links: Mapping[str, str] | None = None,
    delete: Sequence[str] | None = None,
) -> None:
    r"""Have calls of ``pytorch_func_name`` become calls of ``jittor_func_module.jittor_func_name``, from now on.

    Args:
        pytorch_func_name: the last part of the name, ``"Conv2d"``, or all of it, ``"torch.nn.Conv2d"``.
        pytorch_args, jittor_args: parameters with defaults, as text.
        extras: parameter of the new function -> the text of the argument that it always gets.
        links: parameter of the old function -> what it is called in the new one.
        delete: parameters of the old function that are left out.

    Example:
        >>> pjmap_append("Mystery", "size, flag=False", "nn", "Linear", "in_features, out_features", {"out_features": "3"},
        ...              {"size": "in_features"}, ["flag"])
        >>> print(convert("import torch\nlayer = torch.nn.Mystery(4, flag=True)\n"), end="")
        import jittor as jt
        layer = jt.nn.Linear(4, out_features=3)
    """
    _added[pytorch_func_name] = _mapping(
        pytorch_args, jittor_func_module, jittor_func_name, jittor_args, extras, links, delete
    )


def _mapping(
    theirs: str, module: str, name: str, own: str, extras: Any = None, links: Any = None, delete: Any = None
) -> Mapping_:
    return {
        "pytorch": {"args": theirs}, "jittor": {"module": module, "name": name, "args": own}, "extras": dict(extras or {}),
        "links": dict(links or {}), "delete": list(delete or []),
    }  # fmt: skip


def convert(code: str, ex_pjmaps: Mapping[str, Mapping_] | None = None) -> str:
    r"""The text of a PyTorch program as a text for the reference API. ``ex_pjmaps``: mappings for this call only.

    What is not converted raises ``RuntimeError`` where the program uses it; ``convert_source`` also lists it.

    Errors: ``SourceError`` if ``code`` is no Python; ``ArgumentError`` for a mapping that lacks something.

    Example:
        >>> print(convert("from torch import nn\nlayer = nn.LeakyReLU(0.1, inplace=True)\n"), end="")
        from jittor import nn
        layer = nn.LeakyReLU(0.1)
    """
    mappings = {**_added, **(ex_pjmaps or {})}
    answers = {name: _answer(name, mapping) for name, mapping in mappings.items()}
    with _with(answers):
        return convert_source(code, target="jittor").source


def _answer(name: str, mapping: Mapping_) -> tuple[Answer, str]:
    try:
        theirs, target = mapping["pytorch"]["args"], mapping["jittor"]
        path = ".".join(p for p in (target["module"].removeprefix("jt").lstrip("."), target["name"]) if p)
        own = target["args"]
    except (KeyError, TypeError) as error:
        raise ArgumentError(
            f"[convert] the mapping of {name!r} lacks {error}; see metafuse_converter.pjmap"
        ) from None
    rule = Rule(
        target=path,
        parameters=theirs,
        renames=dict(mapping.get("links") or {}),
        dropped=tuple(mapping.get("delete") or ()),
        added={k: str(v) for k, v in (mapping.get("extras") or {}).items()},
    )
    return Answer(name, rule, path, parse(theirs)), own


@contextmanager
def _with(answers: Mapping[str, tuple[Answer, str]]) -> Iterator[None]:
    """Have ``lookup`` answer these first."""
    before = dict(lookup.OWN)
    lookup.OWN.clear()
    lookup.OWN.update(answers)
    try:
        yield
    finally:
        lookup.OWN.clear()
        lookup.OWN.update(before)


class _Unsupported(Mapping[str, str]):
    """Names of PyTorch's layers and functions that have no counterpart, with the reasons."""

    def _names(self) -> dict[str, str]:
        found = {}
        for module in (
            "torch.nn",
            "torch.nn.functional",
            "torch.nn.init",
            "torch.nn.utils",
            "torch.nn.utils.rnn",
        ):
            for name in lookup.inventory()[module]:
                answer = lookup.find(f"{module}.{name}")
                if answer is not None and not answer.offered:
                    found[name] = answer.why
        return found

    def __getitem__(self, name: str) -> str:
        return self._names()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


unsupport: Mapping[str, str] = _Unsupported()


def raise_unsupport(name: str, ori_src: str = "") -> None:
    """Say that a name has no counterpart. Errors: ``RuntimeError``, always."""
    shown = f" in {ori_src.strip()!r}" if ori_src else ""
    raise RuntimeError(f"{name} has no counterpart{shown}: {unsupport.get(name, 'it is unknown')}")


class Converter:
    """A converter with mappings of its own, as the reference API has it: ``Converter(ex_pjmaps)(code)``."""

    def __init__(self, ex_pjmap: Mapping[str, Mapping_] | None = None) -> None:
        self.ex_pjmap = dict(ex_pjmap or {})

    def __call__(self, code: str) -> str:
        return convert(code, self.ex_pjmap)
