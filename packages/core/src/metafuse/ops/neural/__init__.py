"""Neural-network operators as functions of Vars: convolution, pooling, normalisation, activations, losses.

What it is: operator records composed from meta-operators; every gradient follows from the composition.
What it is not: layers with parameters (``nn``).
Who calls it: users through ``metafuse.nn`` and ``metafuse``, and the layers.
"""

from . import (
    activation,
    adaptive_pooling,
    attention,
    basic,
    columns,
    convolution,
    loss,
    normalisation,
    pooling,
    products,
    recurrent,
    resizing,
    sampling,
    unpooling,
)
from .activation import *
from .adaptive_pooling import *
from .attention import *
from .basic import *
from .columns import *
from .convolution import *
from .loss import *
from .normalisation import *
from .pooling import *
from .products import *
from .recurrent import *
from .resizing import *
from .sampling import *
from .unpooling import *

__all__ = [
    *activation.__all__,
    *adaptive_pooling.__all__,
    *attention.__all__,
    *basic.__all__,
    *columns.__all__,
    *convolution.__all__,
    *loss.__all__,
    *normalisation.__all__,
    *pooling.__all__,
    *products.__all__,
    *recurrent.__all__,
    *resizing.__all__,
    *sampling.__all__,
    *unpooling.__all__,
]
