"""Losses between clouds of points.

What it is: the Chamfer loss and the earth mover's distance, as functions and as objects.
What it is not: layers of point networks.
Who calls it: users, as ``metafuse.loss3d``.
"""

from .chamfer import ChamferLoss, chamfer_loss
from .emd import EarthMoverDistance, earth_mover_distance

__all__ = ["ChamferLoss", "EarthMoverDistance", "chamfer_loss", "earth_mover_distance"]
