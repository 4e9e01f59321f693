"""Optimizers: rules that turn gradients into new parameters.

What it is: ``Optimizer``, the rules of the reference API, and schedulers by a function.
What it is not: differentiation (``metafuse.grad``), or the other schedulers (``metafuse.lr_scheduler``).
Who calls it: users; ``nn`` re-exports the rules.
"""

from .adagrad import Adagrad
from .adam import Adam, AdamW
from .adam_variants import Adamax, NAdam, RAdam
from .adan import Adan
from .optimizer import Optimizer, opt_grad
from .rmsprop import RMSprop
from .schedules import LambdaLR, LRScheduler
from .sgd import SGD

__all__ = [
    "SGD", "Adagrad", "Adam", "AdamW", "Adamax", "Adan", "LRScheduler", "LambdaLR", "NAdam", "Optimizer", "RAdam",
    "RMSprop", "opt_grad",
]  # fmt: skip
