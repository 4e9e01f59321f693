"""Transforms of transforms.

What it is: one after another, by chance, by choice, in any order; and functions as transforms.
What it is not: a change of images.
Who calls it: users.

All chance in ``transform`` comes from Python's ``random``, which ``metafuse.set_global_seed`` seeds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ..arguments import checked
from ..errors import ArgumentError, brief
from .images import check_probability

__all__ = ["Compose", "Lambda", "RandomApply", "RandomChoice", "RandomOrder"]


def _check(op: str, transforms: Any) -> list[Callable[..., Any]]:
    if not isinstance(transforms, (list, tuple)) or not all(map(callable, transforms)):
        raise ArgumentError(
            f"[{op}] transforms must be a list of transforms or functions, got {brief(transforms)}"
        )
    return list(transforms)


@checked
class Compose:
    """One transform after another. Called with several values (image and mask), every transform gets and answers all of them.

    Example:
        >>> import metafuse as mf
        >>> mf.transform.Compose([lambda x: x + 1, lambda x: x * 2])(3)
        8
        >>> mf.transform.Compose([lambda x, y: (y, x)])(1, 2)
        (2, 1)
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = _check("Compose", transforms)

    def __call__(self, *data: Any) -> Any:
        """The result of the last transform."""
        for transform in self.transforms:
            result = transform(*data)
            data = result if len(data) > 1 and isinstance(result, tuple) else (result,)
        return data[0] if len(data) == 1 else data

    def __repr__(self) -> str:
        return f"Compose([{', '.join(getattr(t, '__name__', None) or repr(t) for t in self.transforms)}])"


@checked
class Lambda:
    """A function as a transform.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.Lambda(lambda image: image + 1)(image).max()
        np.uint8(1)
    """

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise ArgumentError(f"[Lambda] lambd must be a function, got {brief(lambd)}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        """What the function answers."""
        return self.lambd(img)


@checked
class RandomApply:
    """All transforms in a row, with probability ``p``; else none.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomApply([mf.transform.Gray()], p=0.0)(image).shape
        (4, 6, 3)
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5) -> None:
        self.transforms = _check("RandomApply", transforms)
        self.p = check_probability("RandomApply", p)

    def __call__(self, img: Any) -> Any:
        """The image, changed or not."""
        if random.random() < self.p:
            for transform in self.transforms:
                img = transform(img)
        return img


@checked
class RandomChoice:
    """One of the transforms.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomChoice([mf.transform.Pad(1), mf.transform.Pad(1)])(image).shape
        (6, 8, 3)
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = _check("RandomChoice", transforms)
        if not self.transforms:
            raise ArgumentError("[RandomChoice] transforms must not be empty")

    def __call__(self, img: Any) -> Any:
        """The image, changed by one of them."""
        return random.choice(self.transforms)(img)


@checked
class RandomOrder:
    """All transforms, in a new order each time.

    Example:
        >>> import metafuse as mf
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> mf.transform.RandomOrder([mf.transform.Pad(1), mf.transform.Pad(2)])(image).shape
        (10, 12, 3)
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = _check("RandomOrder", transforms)

    def __call__(self, img: Any) -> Any:
        """The image, changed by all."""
        for transform in random.sample(self.transforms, len(self.transforms)):
            img = transform(img)
        return img
