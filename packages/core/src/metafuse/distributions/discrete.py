"""Discrete families: categorical (as numbers or one-hot rows), geometric.

What it is: samples, log probabilities, entropies.
What it is not: a way to draw without replacement.
Who calls it: users, as ``metafuse.distributions``.

Sources: samples of categories are the place of the largest of ``log p + Gumbel noise`` (Gumbel, "Statistical theory of
extreme values and some practical applications", 1954), in one fused pass; the geometric distribution by inversion, Devroye,
"Non-Uniform Random Variate Generation", 1986, chapter X.2.
"""

from __future__ import annotations

from typing import Any

from ..arguments import checked
from ..dtypes import int32
from ..errors import DTypeError, ShapeError
from ..ops.elementwise import broadcast_shapes, cast
from ..ops.meta import broadcast_to, check_shape, check_var, index, reshape
from ..ops.neural.activation import log_softmax, softmax
from ..ops.neural.basic import pad
from ..ops.reduce import argmax, sum
from ..ops.scalar import exp, floor, log, sigmoid, where
from ..ops.scan import cumsum
from ..var import Var
from .parameters import drawn, log_or_infinite, number_in, one_of, parameter

__all__ = ["Categorical", "Geometric", "OneHotCategorical", "simple_presum"]

_INFINITE = float("inf")


@checked
def simple_presum(x: Any) -> Var:
    """Sums of what comes before: ``y[..., k]`` is the sum of the first k elements; ``[..., n] -> [..., n + 1]``.

    Example:
        >>> import metafuse as mf
        >>> mf.distributions.simple_presum(mf.array([1.0, 2.0, 3.0])).numpy()
        array([0., 1., 3., 6.], dtype=float32)
    """
    return pad(cumsum(check_var("simple_presum", "x", x), -1), (1, 0))  # type: ignore[no-any-return]


class _Categories:
    """Probabilities of k categories, ``[..., k]``."""

    def __init__(self, probs: Any = None, logits: Any = None) -> None:
        op = type(self).__name__
        one_of(op, "probs", probs, "logits", logits)
        name = "probs" if logits is None else "logits"
        given = parameter(op, name, probs if logits is None else logits)
        if not given.shape[-1]:
            raise ShapeError(f"[{op}] {name} must have at least one category, got shape {list(given.shape)}")
        if logits is None:
            self.probs = given / sum(given, -1, True)
            self.logits = log_or_infinite(self.probs)
        else:
            self.probs, self.logits = softmax(given, -1), log_softmax(given, -1)
        self.categories = int(given.shape[-1])
        self._batch = tuple(given.shape[:-1])

    def _places(self, sample_shape: Any) -> Var:
        """int32 ``[*sample_shape, *batch]``: drawn categories."""
        shape = (*check_shape(f"{type(self).__name__}.sample", sample_shape), *self._batch, self.categories)
        noise = -log(-log(drawn(shape, self.logits)))
        place, _ = argmax(self.logits.detach() + noise, -1)
        return place.stop_grad()

    def entropy(self) -> Var:
        """The entropy in nats, ``[...]`` (``[1]`` without a batch)."""
        never = self.probs == 0
        return -sum(where(never, 0.0, self.probs * where(never, 0.0, self.logits)), -1)


@checked
class OneHotCategorical(_Categories):
    """Rows of zeros with a single 1, the place of which is the category.

    Args:
        probs: probabilities ``[..., k]``; they are divided by their sum.
        logits: their logarithms up to a constant, instead.

    Attributes: ``probs`` and ``logits``, normalised.

    Example:
        >>> import metafuse as mf
        >>> d = mf.distributions.OneHotCategorical(mf.array([0.0, 1.0]))
        >>> d.sample([2]).numpy()
        array([[0., 1.],
               [0., 1.]], dtype=float32)
    """

    def sample(self, sample_shape: Any = ()) -> Var:
        """Random rows ``[*sample_shape, ..., k]``, in the dtype of the probabilities."""
        shape = (*check_shape("OneHotCategorical.sample", sample_shape), *self._batch, self.categories)
        place = reshape(self._places(sample_shape), (*shape[:-1], 1))
        return cast(index(list(shape), len(shape) - 1) == place, self.probs.dtype).stop_grad()

    def log_prob(self, x: Any) -> Var:
        """The logarithm of the probability of one-hot rows ``[..., k]``."""
        x = check_var("OneHotCategorical.log_prob", "x", x)
        if x.shape[-1] != self.categories:
            raise ShapeError(
                f"[OneHotCategorical.log_prob] x must end in {self.categories} categories, got shape {list(x.shape)}"
            )
        return sum(where(x != 0, self.logits * cast(x, self.logits.dtype), 0.0), -1)


@checked
class Categorical(_Categories):
    """Whole numbers 0..k-1 with given probabilities.

    Args:
        probs: probabilities ``[..., k]``; they are divided by their sum.
        logits: their logarithms up to a constant, instead.

    Attributes: ``probs`` and ``logits``, normalised.

    Example:
        >>> import metafuse as mf
        >>> d = mf.distributions.Categorical(mf.array([0.25, 0.75]))
        >>> mf.exp(d.log_prob(mf.array([0, 1]))).numpy().round(4)
        array([0.25, 0.75], dtype=float32)
    """

    def sample(self, sample_shape: Any = ()) -> Var:
        """Random int32 numbers ``[*sample_shape, ...]`` (``[1]`` if both are empty)."""
        return self._places(sample_shape)

    def log_prob(self, x: Any) -> Var:
        """The logarithm of the probability of the numbers ``x``, which broadcast against the batch."""
        op = "Categorical.log_prob"
        x = check_var(op, "x", x)
        if not x.dtype.is_integer:
            raise DTypeError(f"[{op}] x must be integers, got {x.dtype}; cast it")
        batch = broadcast_shapes(op, [tuple(x.shape), self._batch])
        shape = (*batch, self.categories)
        x = broadcast_to(x, batch)
        chosen = index(list(shape), len(batch)) == x.unsqueeze(-1)
        value = sum(where(chosen, broadcast_to(self.logits, shape), 0.0), -1)
        return where((x >= 0) & (x < self.categories), value, -_INFINITE)


@checked
class Geometric:
    """How often one fails before the first success: 0, 1, 2 ...

    Args:
        p: the probability of success, in (0, 1].
        logits: ``log(p / (1 - p))`` instead.

    Example:
        >>> import metafuse as mf
        >>> d = mf.distributions.Geometric(0.5)
        >>> mf.exp(d.log_prob(mf.array([0, 1, 2]))).numpy().round(4)
        array([0.5  , 0.25 , 0.125], dtype=float32)
    """

    def __init__(self, p: Any = None, logits: Any = None) -> None:
        one_of("Geometric", "p", p, "logits", logits)
        if logits is None:
            number_in("Geometric", "p", p, not isinstance(p, (int, float)) or 0 < p <= 1, "in (0, 1]")
            self.p = parameter("Geometric", "p", p)
            self.logits = log_or_infinite(self.p) - log_or_infinite(1.0 - self.p)
        else:
            self.logits = parameter("Geometric", "logits", logits)
            self.p = sigmoid(self.logits)

    def _failure(self) -> Var:
        """``log(1 - p)``."""
        return log_or_infinite(1.0 - self.p)

    def sample(self, sample_shape: Any = None) -> Var:
        """Random int32 numbers of ``sample_shape``, to which the parameter broadcasts (``None``: of its own shape)."""
        from .parameters import target_shape

        shape = target_shape("Geometric.sample", sample_shape, self.p)
        ratio = log(1.0 - drawn(shape, self.p)) / self._failure().detach()
        return cast(floor(ratio), int32).stop_grad()

    def log_prob(self, x: Any) -> Var:
        """The logarithm of the probability of ``x`` failures; minus infinity unless that is a whole number >= 0."""
        x = parameter("Geometric.log_prob", "x", x)
        none = x == 0
        failures = where(none, 0.0, where(none, 1.0, x) * self._failure())
        return where((x >= 0) & (x == floor(x)), failures + log(self.p), -_INFINITE)

    def cdf(self, x: Any) -> Var:
        """The probability of at most ``x`` failures."""
        x = parameter("Geometric.cdf", "x", x)
        return where(x < 0, 0.0, 1.0 - exp((floor(x) + 1.0) * self._failure()))

    def entropy(self) -> Var:
        """The entropy in nats."""
        q = 1.0 - self.p
        sure = q == 0
        missed = where(sure, 0.0, q * where(sure, 0.0, self._failure()))
        return -(missed + self.p * log(self.p)) / self.p
