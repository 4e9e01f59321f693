"""Files of arrays: PyTorch's, safetensors, NumPy's and the reference API's, read without executing anything in them.

What it is: ``load`` and ``save``, which know all formats, and the functions of each.
What it is not: names of parameters (``nn.state``) or data sets (``data``).
Who calls it: users, as ``metafuse.load``, ``metafuse.save`` and ``metafuse.io``.
"""

from .api import ENDINGS, load, save
from .files import FileFormatError
from .hashed_pickle import load_pickle, save_pickle
from .numpy_files import load_numpy, save_numpy
from .pytorch_read import load_pytorch
from .pytorch_write import save_pytorch
from .safetensors import load_safetensors, save_safetensors

#: by the reference API's names
safepickle, safeunpickle = save_pickle, load_pickle

__all__ = [
    "ENDINGS",
    "FileFormatError",
    "load",
    "load_numpy",
    "load_pickle",
    "load_pytorch",
    "load_safetensors",
    "safepickle",
    "safeunpickle",
    "save",
    "save_numpy",
    "save_pickle",
    "save_pytorch",
    "save_safetensors",
]
