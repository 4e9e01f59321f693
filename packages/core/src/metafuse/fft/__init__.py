"""Discrete Fourier transforms of real and complex values.

What it is: the names of ``ops.fourier``. NumPy does the work on the host; results have gradients of any order.
What it is not: complex arithmetic; complex values are ``metafuse.nn.ComplexNumber``, pairs of real Vars.
Who calls it: users, as ``metafuse.fft``.
"""

from ..ops.fourier import *
from ..ops.fourier import __all__ as __all__
