"""The layers of ``einops`` as metafuse modules.

What it is: ``Rearrange``, ``Reduce`` and ``EinMix``; the package brings the patterns, this module the parameters and the call.
What it is not: the functions (``metafuse.einops``).
Who calls it: users; ``einops`` itself, which names such a module after the framework.
"""

from __future__ import annotations

from collections.abc import Sequence

from einops.layers import RearrangeMixin, ReduceMixin
from einops.layers._einmix import _EinmixMixin

from ... import init
from ...nn.module import Module
from ...ops.einsum import einsum
from ...var import Var

__all__ = ["EinMix", "Rearrange", "Reduce"]


class Rearrange(RearrangeMixin, Module):  # type: ignore[misc]
    """``rearrange`` as a layer.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.einops.layers import Rearrange
        >>> Rearrange("b c h w -> b (c h w)")(mf.ones([2, 3, 4, 5])).shape
        (2, 60)
    """

    def execute(self, input: Var) -> Var:
        return self._apply_recipe(input)  # type: ignore[no-any-return]


class Reduce(ReduceMixin, Module):  # type: ignore[misc]
    """``reduce`` as a layer.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.einops.layers import Reduce
        >>> Reduce("b c (h 2) (w 2) -> b c h w", "max")(mf.ones([1, 3, 4, 4])).shape
        (1, 3, 2, 2)
    """

    def execute(self, input: Var) -> Var:
        return self._apply_recipe(input)  # type: ignore[no-any-return]


class EinMix(_EinmixMixin, Module):  # type: ignore[misc]
    """A linear map over named axes: an Einstein sum with a weight that is trained.

    Args:
        pattern: axes of input and answer.
        weight_shape: axes of the weight.
        bias_shape: axes of a bias that is added, or ``None``.
        axes_lengths: the extents of all of these.

    Weights start uniform in +-sqrt(3 / n), biases in +-sqrt(1 / n), with n the number of terms of a sum.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.einops.layers import EinMix
        >>> layer = EinMix("b t i -> b t o", "i o", "o", i=3, o=5)
        >>> layer(mf.ones([2, 4, 3])).shape, layer.weight.shape
        ((2, 4, 5), (3, 5))
    """

    def _create_parameters(
        self,
        weight_shape: Sequence[int],
        weight_bound: float,
        bias_shape: Sequence[int] | None,
        bias_bound: float,
    ) -> None:
        self.weight = init.uniform(list(weight_shape), "float32", -weight_bound, weight_bound)
        wanted = bias_shape is not None
        self.bias = (
            init.uniform(list(bias_shape or ()), "float32", -bias_bound, bias_bound) if wanted else None
        )

    def _create_rearrange_layers(
        self,
        pre_reshape_pattern: str | None,
        pre_reshape_lengths: dict[str, int] | None,
        post_reshape_pattern: str | None,
        post_reshape_lengths: dict[str, int] | None,
    ) -> None:
        def layer(pattern: str | None, lengths: dict[str, int] | None) -> Rearrange | None:
            return None if pattern is None else Rearrange(pattern, **(lengths or {}))

        self.pre_rearrange = layer(pre_reshape_pattern, pre_reshape_lengths)
        self.post_rearrange = layer(post_reshape_pattern, post_reshape_lengths)

    def execute(self, input: Var) -> Var:
        x = input if self.pre_rearrange is None else self.pre_rearrange(input)
        x = einsum(self.einsum_pattern, x, self.weight)
        x = x if self.bias is None else x + self.bias
        return x if self.post_rearrange is None else self.post_rearrange(x)
