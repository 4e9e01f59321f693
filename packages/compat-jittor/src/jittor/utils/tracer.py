"""``jittor.utils.tracer``: names for parameters, by which messages and lists of live arrays call them.

What it is: ``fill_module_name``.
What it is not: a tracer; ``metafuse.explain`` and ``metafuse.debug`` show what runs.
Who calls it: users.
"""

from __future__ import annotations

from metafuse import nn

__all__ = ["fill_module_name"]


def fill_module_name(m: nn.Module, name: str) -> None:
    """Name every parameter of ``m`` by its path below ``name``.

    Example:
        >>> from jittor import nn
        >>> from jittor.utils.tracer import fill_module_name
        >>> net = nn.Sequential(nn.Linear(2, 3))
        >>> fill_module_name(net, "net")
        >>> net[0].bias.name()
        'net.0.bias'
    """
    for path, var in m.named_parameters():
        var.name(f"{name}.{path}")
