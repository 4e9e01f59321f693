"""All conformance tests, to be imported with a star by a backend's test file.

What it is: the tests of every level under one name.
What it is not: the tests themselves (``levels``) or their order, parameters and skipping (``plugin``).
Who calls it: a backend's test file, in full::

    from metafuse.testing.suite import *  # noqa: F403

    BACKEND = "mychip"

or, without a file, ``python -m pytest --pyargs metafuse.testing.suite --metafuse-backend mychip``.
"""

from __future__ import annotations

from metafuse.testing.levels import (
    autograd,
    code,
    collectives,
    contract,
    elementwise,
    fusion,
    index,
    library,
    memory,
    odd_inputs,
    reduce,
)

#: loads the plugin where it is not installed as an entry point
pytest_plugins = ["metafuse.testing.plugin"]
__all__ = ["pytest_plugins"]
for _module in (
    memory,
    contract,
    elementwise,
    index,
    reduce,
    fusion,
    autograd,
    odd_inputs,
    library,
    code,
    collectives,
):
    for _name in _module.__all__:
        if _name.startswith("test_"):
            globals()[_name] = getattr(_module, _name)
            __all__ += [_name]
