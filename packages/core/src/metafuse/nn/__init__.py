"""Layers, losses and the functions they call, under the names of the reference API.

What it is: the user's toolbox for networks; ``Module`` is where to begin.
What it is not: the operators' definitions (``ops``); this package re-exports those that belong to networks.
Who calls it: users, as ``metafuse.nn``.
"""

from . import (
    activation,
    containers,
    conv,
    embedding,
    linear,
    losses,
    module,
    norm,
    pooling,
    regularise,
    reshaping,
)
from .activation import *
from .containers import *
from .conv import *
from .embedding import *
from .linear import *
from .losses import *
from .module import *
from .norm import *
from .pooling import *
from .regularise import *
from .reshaping import *
