"""Neural-network operators as functions of Vars: convolution, pooling, normalisation, activations, losses.

What it is: operator records composed from meta-operators; every gradient follows from the composition.
What it is not: layers with parameters (``nn``).
Who calls it: users through ``metafuse.nn`` and ``metafuse``, and the layers.
"""

from . import activation, basic, convolution, loss, normalisation, pooling
from .activation import *  # noqa: F403
from .basic import *  # noqa: F403
from .convolution import *  # noqa: F403
from .loss import *  # noqa: F403
from .normalisation import *  # noqa: F403
from .pooling import *  # noqa: F403

__all__ = [
    *activation.__all__,
    *basic.__all__,
    *convolution.__all__,
    *loss.__all__,
    *normalisation.__all__,
    *pooling.__all__,
]
