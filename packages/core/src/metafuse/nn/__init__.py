"""Layers, losses and the functions they call, under the names of the reference API.

What it is: the user's toolbox for networks; ``Module`` is where to begin.
What it is not: the operators' definitions (``ops``) or update rules (``optim``); this package re-exports those that belong to
networks.
Who calls it: users, as ``metafuse.nn``.
"""

from .. import init
from ..ops import neural as _neural
from ..ops.complex_number import ComplexNumber, view_as_complex
from ..ops.linalg import matmul, matmul_transpose
from ..ops.neural import *
from ..ops.products import kron, tensordot
from ..ops.record_docs import complete_layer
from ..ops.scalar import sigmoid, sign, tanh
from ..ops.shape import flatten
from ..optim import (
    SGD,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    LambdaLR,
    LRScheduler,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    opt_grad,
)
from . import (
    activation as _activation,
)
from . import (
    activation_variants as _activation_variants,
)
from . import (
    containers as _containers,
)
from . import (
    convolution as _convolution,
)
from . import (
    convolution_variants as _convolution_variants,
)
from . import (
    dense as _dense,
)
from . import (
    distances as _distances,
)
from . import (
    lookup as _lookup,
)
from . import (
    losses as _losses,
)
from . import (
    module as _module,
)
from . import (
    multihead as _multihead,
)
from . import (
    norm as _norm,
)
from . import (
    pooling as _pooling,
)
from . import (
    recurrent as _recurrent,
)
from . import (
    regularise as _regularise,
)
from . import (
    reshaping as _reshaping,
)
from . import (
    resizing as _resizing,
)
from . import (
    tools as _tools,
)
from . import (
    transformer as _transformer,
)
from .activation import *
from .activation_variants import *
from .containers import *
from .convolution import *
from .convolution_variants import *
from .dense import *
from .distances import *
from .lookup import *
from .losses import *
from .module import *
from .multihead import *
from .norm import *
from .pooling import *
from .recurrent import *
from .regularise import *
from .reshaping import *
from .resizing import *
from .tools import *
from .transformer import *

_PARTS = (
    _activation,
    _activation_variants,
    _containers,
    _convolution,
    _convolution_variants,
    _dense,
    _distances,
    _lookup,
    _losses,
    _module,
    _multihead,
    _norm,
    _pooling,
    _recurrent,
    _regularise,
    _reshaping,
    _resizing,
    _tools,
    _transformer,
)

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "ComplexNumber",
    "LRScheduler",
    "LambdaLR",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "flatten",
    "init",
    "kron",
    "matmul",
    "matmul_transpose",
    "opt_grad",
    "sigmoid",
    "sign",
    "tanh",
    "tensordot",
    "view_as_complex",
    *_neural.__all__,
    *(name for part in _PARTS for name in part.__all__),
]

for _name in __all__:
    if isinstance(globals()[_name], type) and issubclass(globals()[_name], _module.Module):
        complete_layer(globals()[_name])
