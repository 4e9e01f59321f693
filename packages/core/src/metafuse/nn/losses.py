"""Loss layers.

What it is: modules that keep the options of a loss.
What it is not: the computation (``ops.neural.loss``, ``class_loss`` and ``ctc``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from ..ops import neural
from ..ops.meta import check_flag
from ..ops.neural.checks import REDUCTIONS, choice, fraction, integer, number
from .module import Module

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CrossEntropyLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "NLLLoss",
    "SmoothL1Loss",
]


def _given(kind: str, reduction: Any) -> str | None:
    return None if reduction is None else choice(kind, "reduction", reduction, REDUCTIONS)


class CrossEntropyLoss(Module):
    """``cross_entropy_loss`` with given class weights, ignored target, reduction and label smoothing; targets are class numbers,
    or probabilities in the shape of the output.

    Args:
        weight: ``[classes]``: the importance of each class.
        ignore_index: targets of this value do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: in [0, 1]: which share of the target's probability is spread evenly over all classes.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.CrossEntropyLoss()(mf.array([[0.0, 0.0]]), mf.array([1])).item(), 4)
        0.6931

    Source: negative log-likelihood of softmax.
    """

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        self.weight = weight
        self.ignore_index = ignore_index
        self.reduction = choice("CrossEntropyLoss", "reduction", reduction, REDUCTIONS)
        self.label_smoothing = fraction("CrossEntropyLoss", "label_smoothing", label_smoothing)

    def execute(self, output: Any, target: Any) -> Any:
        return neural.cross_entropy_loss(
            output, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )


class MSELoss(Module):
    """Squared difference, reduced by ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.MSELoss()(mf.array([1.0, 2.0]), mf.array([1.0, 4.0])).item()
        2.0

    Source: mean of squared differences.
    """

    _shown = ("reduction",)

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = choice("MSELoss", "reduction", reduction, REDUCTIONS)

    def execute(self, output: Any, target: Any) -> Any:
        return neural.mse_loss(output, target, self.reduction)


class L1Loss(Module):
    """Absolute difference, reduced by ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.L1Loss()(mf.array([1.0, 2.0]), mf.array([1.0, 4.0])).item()
        1.0

    Source: mean of |x - y|.
    """

    _shown = ("reduction",)

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = choice("L1Loss", "reduction", reduction, REDUCTIONS)

    def execute(self, output: Any, target: Any) -> Any:
        return neural.l1_loss(output, target, self.reduction)


class SmoothL1Loss(Module):
    """Half the squared difference over ``beta`` where the difference is below ``beta``, else the difference minus ``beta / 2``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.SmoothL1Loss()(mf.array([1.0, 2.0]), mf.array([1.0, 4.0])).item()
        0.75

    Source: Girshick 2015.
    """

    _shown = ("reduction", "beta")

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        self.reduction = choice("SmoothL1Loss", "reduction", reduction, REDUCTIONS)
        self.beta = number("SmoothL1Loss", "beta", beta, 0)

    def execute(self, output: Any, target: Any) -> Any:
        return neural.smooth_l1_loss(target, output, self.reduction, self.beta)


class BCELoss(Module):
    """Binary cross entropy of probabilities; mean, or sum without ``size_average``, or as
    ``reduction`` says.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.BCELoss()(mf.array([0.9, 0.2]), mf.array([1.0, 0.0])).item(), 4)
        0.1643

    Source: cross entropy.
    """

    def __init__(self, weight: Any = None, size_average: bool = True, reduction: str | None = None) -> None:
        self.weight = weight
        self.size_average = check_flag("BCELoss", "size_average", size_average)
        self.reduction = _given("BCELoss", reduction)

    def execute(self, output: Any, target: Any) -> Any:
        return neural.bce_loss(output, target, self.weight, self.size_average, self.reduction)


class BCEWithLogitsLoss(Module):
    """Binary cross entropy of logits; mean, or sum without ``size_average``, or as
    ``reduction`` says.

    Example:
        >>> import metafuse as mf
        >>> round(mf.nn.BCEWithLogitsLoss()(mf.array([2.0, -2.0]), mf.array([1.0, 0.0])).item(), 4)
        0.1269

    Source: cross entropy of sigmoid.
    """

    def __init__(
        self,
        weight: Any = None,
        pos_weight: Any = None,
        size_average: bool = True,
        reduction: str | None = None,
    ) -> None:
        self.weight = weight
        self.pos_weight = pos_weight
        self.size_average = check_flag("BCEWithLogitsLoss", "size_average", size_average)
        self.reduction = _given("BCEWithLogitsLoss", reduction)

    def execute(self, output: Any, target: Any) -> Any:
        return neural.binary_cross_entropy_with_logits(
            output, target, self.weight, self.pos_weight, self.size_average, self.reduction
        )


class KLDivLoss(Module):
    """Kullback-Leibler divergence of log probabilities from targets.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.KLDivLoss()(mf.array([[0.5, 0.5]]).log(), mf.array([[0.5, 0.5]])).item()
        0.0

    Source: Kullback-Leibler divergence.
    """

    _shown = ("reduction",)

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        self.reduction = choice("KLDivLoss", "reduction", reduction, ("mean", "batchmean", "sum", "none"))
        self.log_target = check_flag(type(self).__name__, "log_target", log_target)

    def execute(self, input: Any, target: Any) -> Any:
        return neural.kl_div(input, target, self.reduction, self.log_target)


class NLLLoss(Module):
    """Minus the log probability of the target class; arguments as in ``nll_loss``.

    Example:
        >>> import metafuse as mf
        >>> mf.nn.NLLLoss()(mf.array([[-1.0, -2.0]]), mf.array([1])).item()
        2.0

    Source: negative log-likelihood.
    """

    _shown = ("reduction",)

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        self.weight = weight
        self.ignore_index = ignore_index
        self.reduction = choice("NLLLoss", "reduction", reduction, REDUCTIONS)

    def execute(self, output: Any, target: Any) -> Any:
        return neural.nll_loss(output, target, self.weight, self.ignore_index, self.reduction)


class CTCLoss(Module):
    """Loss of unaligned sequences; arguments as in ``ctc_loss``.

    Example:
        >>> import metafuse as mf
        >>> scores = mf.nn.log_softmax(mf.zeros([3, 1, 2]), dim=2)
        >>> round(mf.nn.CTCLoss()(scores, mf.array([[1]]), [3], [1]).item(), 4)
        0.2877

    Source: Graves et al. 2006.
    """

    _shown = ("blank", "reduction")

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        self.blank = integer("CTCLoss", "blank", blank, 0)
        self.reduction = choice("CTCLoss", "reduction", reduction, REDUCTIONS)
        self.zero_infinity = check_flag(type(self).__name__, "zero_infinity", zero_infinity)

    def execute(self, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any) -> Any:
        return neural.ctc_loss(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity
        )
