"""Rule: what becomes of one name of PyTorch, as data.

What it is: the record of the table, and short ways to write one.
What it is not: the table itself (``table``) or its application (``rewrite``, ``arguments``).
Who calls it: every module of ``table``.

Names that are called the same and take the same arguments have no record: they are looked up in metafuse itself (``lookup``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Rule", "absent", "becomes", "by"]


@dataclass(frozen=True)
class Rule:
    """What becomes of one name.

    ``target``: path below metafuse (``nn.Conv2d``); empty: the same name, where it is found; ``None``: not offered, and ``why``.
    ``parameters``: PyTorch's, where the inventory does not tell them as scripts use them.
    ``renames``: PyTorch's parameter -> metafuse's. ``dropped``: parameters that may be left out whatever their value.
    ``added``: metafuse's parameter -> text that is written if the script does not give the corresponding one, since
    defaults differ.
    ``alike``: parameters whose defaults differ in writing only.
    ``wrap``: what is written around the new call, which stands for ``{call}``. ``template``: an expression that is written in the
    place of the name if it is not called (``{mf}`` is metafuse), or of the whole call with its arguments by name.
    ``special``: the function of ``special`` that rewrites the call.
    ``needs``: parameters that must have been given for this rule to apply; otherwise the call stays as it is.
    ``certain``: a method that other things than tensors have too: changed only where the receiver is known to be a tensor.
    ``kind``: what the value is (``kinds``), where that does not follow from the module. ``note``: what the user is told.
    """

    target: str | None = ""
    why: str = ""
    parameters: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    added: Mapping[str, str] = field(default_factory=dict)
    alike: tuple[str, ...] = ()
    wrap: str = ""
    template: str = ""
    special: str = ""
    needs: tuple[str, ...] = ()
    certain: bool = False
    kind: str = ""
    note: str = ""

    @property
    def offered(self) -> bool:
        """Whether there is a counterpart."""
        return self.target is not None or bool(self.template or self.special)


def becomes(target: str = "", parameters: str | None = None, /, **more: object) -> Rule:
    """A name that is called ``target``, or that keeps its name but not its arguments."""
    return Rule(target=target, parameters=parameters, **more)  # type: ignore[arg-type]


def by(template: str, parameters: str | None = None, /, **more: object) -> Rule:
    """A name in whose place an expression is written."""
    return Rule(template=template, parameters=parameters, **more)  # type: ignore[arg-type]


def absent(why: str, /, **more: object) -> Rule:
    """A name without counterpart."""
    return Rule(target=None, why=why, **more)  # type: ignore[arg-type]
