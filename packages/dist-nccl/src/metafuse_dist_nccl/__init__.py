"""NCCL for metafuse.

What it is: a plugin that gives the CUDA backend collectives on its own memory.
What it is not: what starts processes or lets them find each other; that is a communicator on host memory (``metafuse-dist-mpi``).
Who calls it: ``metafuse.dist``, through the entry point ``nccl``.
"""

__version__ = "0.1.0"
