"""Neural-network operators as functions of Vars: convolution, pooling, normalisation, activations, losses.

What it is: operator records composed from meta-operators; every gradient follows from the composition.
What it is not: layers with parameters (``nn``).
Who calls it: users through ``metafuse.nn`` and ``metafuse``, and the layers.
"""

from . import (
    activation,
    activation_variants,
    adaptive_pooling,
    attention,
    basic,
    class_loss,
    columns,
    convolution,
    ctc,
    distances,
    loss,
    normalisation,
    pooling,
    products,
    recurrent,
    resizing,
    sampling,
    sequences,
    shuffling,
    unpooling,
)
from .activation import *
from .activation_variants import *
from .adaptive_pooling import *
from .attention import *
from .basic import *
from .class_loss import *
from .columns import *
from .convolution import *
from .ctc import *
from .distances import *
from .loss import *
from .normalisation import *
from .pooling import *
from .products import *
from .recurrent import *
from .resizing import *
from .sampling import *
from .sequences import *
from .shuffling import *
from .unpooling import *

__all__ = [
    *activation.__all__,
    *activation_variants.__all__,
    *adaptive_pooling.__all__,
    *attention.__all__,
    *basic.__all__,
    *class_loss.__all__,
    *columns.__all__,
    *convolution.__all__,
    *ctc.__all__,
    *distances.__all__,
    *loss.__all__,
    *normalisation.__all__,
    *pooling.__all__,
    *products.__all__,
    *recurrent.__all__,
    *resizing.__all__,
    *sampling.__all__,
    *sequences.__all__,
    *shuffling.__all__,
    *unpooling.__all__,
]
