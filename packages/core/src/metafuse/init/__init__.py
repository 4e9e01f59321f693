"""First values of parameters.

What it is: functions that make a Var of a shape (``gauss``, ``xavier_uniform`` ...), and, under the same names with ``_``,
functions that give an existing Var new values.
What it is not: a list of what each layer uses; layers say that themselves.
Who calls it: ``nn`` and users.

Made Vars take part in training (``requires_grad`` is set for floating-point dtypes). ``fan_in`` is the number of inputs of one
output of a weight ``[out, in, *kernel]``, ``fan_out`` the number of outputs of one input.
"""

from .core import (
    calculate_gain,
    calculate_std,
    constant,
    constant_,
    eye,
    eye_,
    fill,
    gauss,
    gauss_,
    invariant_uniform,
    invariant_uniform_,
    kaiming_normal_,
    kaiming_uniform_,
    one,
    one_,
    random_,
    relu_invariant_gauss,
    relu_invariant_gauss_,
    trunc_normal_,
    uniform,
    uniform_,
    xavier_gauss,
    xavier_gauss_,
    xavier_uniform,
    xavier_uniform_,
    zero,
    zero_,
)

__all__ = [
    "calculate_gain",
    "calculate_std",
    "constant",
    "constant_",
    "eye",
    "eye_",
    "fill",
    "gauss",
    "gauss_",
    "invariant_uniform",
    "invariant_uniform_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "one",
    "one_",
    "random_",
    "relu_invariant_gauss",
    "relu_invariant_gauss_",
    "trunc_normal_",
    "uniform",
    "uniform_",
    "xavier_gauss",
    "xavier_gauss_",
    "xavier_uniform",
    "xavier_uniform_",
    "zero",
    "zero_",
]
