"""Optimizers: rules that turn gradients into new parameters.

What it is: ``Optimizer`` and the rules of the reference API.
What it is not: differentiation (``metafuse.grad``).
Who calls it: users; ``nn`` re-exports the rules.
"""

from .adam import Adam, AdamW
from .adan import Adan
from .optimizer import Optimizer, opt_grad
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Adan", "Optimizer", "RMSprop", "opt_grad"]
