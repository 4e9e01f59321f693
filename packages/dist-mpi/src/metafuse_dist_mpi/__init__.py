"""MPI for metafuse.

What it is: a plugin that connects processes started by ``mpirun``, ``srun`` or ``python -m metafuse launch``.
What it is not: an MPI. It uses the one that mpi4py finds.
Who calls it: ``metafuse.dist``, through the entry point ``mpi``.
"""

__version__ = "0.1.0"
