"""Discrete Fourier transforms of real and complex values.

What it is: the names of ``ops.fourier``. NumPy does the work on the host; results have gradients of any order.
What it is not: complex arithmetic; complex values are ``metafuse.nn.ComplexNumber``, pairs of real Vars.
Who calls it: users, as ``metafuse.fft``.
"""

from ..ops.fourier import (
    fft,
    fft2,
    fftfreq,
    fftn,
    fftshift,
    ifft,
    ifft2,
    ifftn,
    ifftshift,
    irfft,
    irfft2,
    rfft,
    rfft2,
    rfftfreq,
)

__all__ = [
    "fft",
    "fft2",
    "fftfreq",
    "fftn",
    "fftshift",
    "ifft",
    "ifft2",
    "ifftn",
    "ifftshift",
    "irfft",
    "irfft2",
    "rfft",
    "rfft2",
    "rfftfreq",
]
