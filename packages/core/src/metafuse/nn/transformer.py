"""Transformers: layers of attention and linear maps, stacks of them, and an encoder with a decoder.

What it is: modules that put ``MultiheadAttention``, linear maps and layer norms in order.
What it is not: attention itself, embeddings, or positions.
Who calls it: users.

Names and shapes of parameters are PyTorch's, so that its state loads. Sequences are ``[length, batch, features]``, with
``batch_first`` ``[batch, length, features]``, and ``[length, features]`` where there is one. Masks are those of
``MultiheadAttention``: bools say what is left out, floats are added to the scores. A place that may look at nothing gets no
attention (zeros).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import init
from ..errors import ArgumentError, DTypeError, brief
from ..ops import neural
from ..ops.creation import full
from ..ops.diagonals import triu
from ..ops.meta import check_flag
from ..ops.neural.checks import integer
from ..var import Var
from .containers import ModuleList
from .dense import Linear
from .module import Module
from .multihead import MultiheadAttention
from .norm import LayerNorm
from .regularise import Dropout

__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": neural.relu, "gelu": neural.gelu}


class _Layer(Module):
    """What layers of encoders and decoders have alike: attention to the sequence itself, two linear maps, norms."""

    _shown = ("d_model", "nhead", "norm_first")

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Any = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ) -> None:
        kind = type(self).__name__
        self.d_model = integer(kind, "d_model", d_model, 1)
        self.nhead = integer(kind, "nhead", nhead, 1)
        width = integer(kind, "dim_feedforward", dim_feedforward, 1)
        self.norm_first = check_flag(kind, "norm_first", norm_first)
        self.batch_first = check_flag(kind, "batch_first", batch_first)
        bias = check_flag(kind, "bias", bias)
        self._rest = (layer_norm_eps, dropout, bias)
        if activation not in _ACTIVATIONS if isinstance(activation, str) else not callable(activation):
            raise ArgumentError(
                f"[{kind}] activation must be 'relu', 'gelu' or a function, got {brief(activation)}"
            )
        self.activation = _ACTIVATIONS[activation] if isinstance(activation, str) else activation
        self.self_attn = self._attention()
        self.linear1 = Linear(self.d_model, width, bias)
        self.dropout = Dropout(dropout, is_train=True)
        self.linear2 = Linear(width, self.d_model, bias)
        self._part(1)
        self._part(2)

    def _attention(self) -> MultiheadAttention:
        _, dropout, bias = self._rest
        return MultiheadAttention(self.d_model, self.nhead, dropout, bias, batch_first=self.batch_first)

    def _part(self, number: int) -> None:
        """The norm and the dropout that belong to one part of the layer."""
        eps, dropout, bias = self._rest
        setattr(self, f"norm{number}", LayerNorm(self.d_model, eps, bias=bias))
        setattr(self, f"dropout{number}", Dropout(dropout, is_train=True))

    def _run(self, number: int, x: Any, part: Callable[[Any], Any]) -> Any:
        """``x`` and what one part adds to it; the norm is before the part or after the sum."""
        norm, dropout = getattr(self, f"norm{number}"), getattr(self, f"dropout{number}")
        return x + dropout(part(norm(x))) if self.norm_first else norm(x + dropout(part(x)))

    def _feed_forward(self, x: Any) -> Any:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


def _attend(
    attention: MultiheadAttention, x: Any, memory: Any, mask: Any, padding: Any, is_causal: bool
) -> Any:
    """``x`` looking at ``memory``; nobody reads the weights."""
    return attention(x, memory, memory, padding, False, mask, is_causal=is_causal)[0]


class TransformerEncoderLayer(_Layer):
    """Attention to the sequence itself and two linear maps, each added to what it is given, with layer norms.

    Args:
        d_model: features of the sequence.
        nhead: heads of the attention; divides ``d_model``.
        dim_feedforward: features between the two linear maps.
        dropout: with which probability elements are zeroed in training.
        activation: between the linear maps: ``"relu"``, ``"gelu"`` or a function.
        layer_norm_eps: added to the variance in layer norms.
        batch_first: sequences are ``[batch, length, features]`` instead of ``[length, batch, features]``.
        norm_first: norms are before attention and linear maps instead of after the sums.
        bias: whether linear maps and norms have biases.

    Called with ``(src, src_mask=None, src_key_padding_mask=None, is_causal=False)``: ``src_mask`` is ``[length, length]`` or
    ``[batch * nhead, length, length]``, ``src_key_padding_mask`` ``[batch, length]``; ``is_causal`` has places look at those up
    to themselves only, where there is no ``src_mask``. Answers the shape of ``src``.

    Errors:
        ArgumentError: sizes that are not whole numbers or do not divide, an unknown activation.

    Example:
        >>> import metafuse as mf
        >>> layer = mf.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> layer(mf.ones([3, 5, 8])).shape
        (3, 5, 8)

    Source: Vaswani et al. 2017; ``norm_first``: Xiong et al. 2020.
    """

    def execute(
        self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Any:
        x = self._run(
            1, src, lambda x: _attend(self.self_attn, x, x, src_mask, src_key_padding_mask, is_causal)
        )
        return self._run(2, x, self._feed_forward)


class TransformerDecoderLayer(_Layer):
    """An encoder's layer with a second attention: to the ``memory`` that an encoder has answered.

    Arguments are those of ``TransformerEncoderLayer``. Called with ``(tgt, memory, tgt_mask=None, memory_mask=None,
    tgt_key_padding_mask=None, memory_key_padding_mask=None, tgt_is_causal=False, memory_is_causal=False)``; masks of ``memory``
    are ``[length, memory length]`` and ``[batch, memory length]``. Answers the shape of ``tgt``.

    Errors:
        ArgumentError: sizes that are not whole numbers or do not divide, an unknown activation.

    Example:
        >>> import metafuse as mf
        >>> layer = mf.nn.TransformerDecoderLayer(8, 2, 16)
        >>> layer(mf.ones([5, 3, 8]), mf.ones([7, 3, 8]), tgt_is_causal=True).shape
        (5, 3, 8)

    Source: Vaswani et al. 2017; ``norm_first``: Xiong et al. 2020.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Any = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__(
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            activation,
            layer_norm_eps,
            batch_first,
            norm_first,
            bias,
        )
        self.multihead_attn = self._attention()
        self._part(3)

    def execute(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Any:
        x = self._run(
            1, tgt, lambda x: _attend(self.self_attn, x, x, tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        )
        padding = memory_key_padding_mask
        x = self._run(
            2, x, lambda x: _attend(self.multihead_attn, x, memory, memory_mask, padding, memory_is_causal)
        )
        return self._run(3, x, self._feed_forward)


class _Stack(Module):
    """Copies of one layer, and a norm after the last."""

    def __init__(self, layer: Any, num_layers: int, norm: Any = None) -> None:
        kind = type(self).__name__
        if not isinstance(layer, Module):
            raise DTypeError(f"[{kind}] needs a layer, got {type(layer).__name__}")
        if norm is not None and not callable(norm):
            raise DTypeError(f"[{kind}] norm must be a module or None, got {type(norm).__name__}")
        self.num_layers = integer(kind, "num_layers", num_layers, 0)
        self.layers = ModuleList([copy.deepcopy(layer) for _ in range(self.num_layers)])
        self.norm = norm


class TransformerEncoder(_Stack):
    """``num_layers`` copies of a layer, one after the other. The copies begin with the same numbers.

    Args:
        encoder_layer: the layer that is copied, a ``TransformerEncoderLayer`` or something that is called like one.
        num_layers: how many copies there are.
        norm: a module that is applied to the answer of the last one, or ``None``.

    Called with ``(src, mask=None, src_key_padding_mask=None, is_causal=False)``, which every layer gets.

    Errors:
        DTypeError: no layer is given. ArgumentError: a number of layers that is no whole number.

    Example:
        >>> import metafuse as mf
        >>> encoder = mf.nn.TransformerEncoder(mf.nn.TransformerEncoderLayer(8, 2, 16), 2)
        >>> encoder(mf.ones([5, 3, 8])).shape
        (5, 3, 8)

    Source: Vaswani et al. 2017.
    """

    def __init__(self, encoder_layer: Any, num_layers: int, norm: Any = None) -> None:
        super().__init__(encoder_layer, num_layers, norm)

    def execute(
        self, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool | None = None
    ) -> Any:
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal))
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(_Stack):
    """``num_layers`` copies of a decoder's layer, one after the other. The copies begin with the same numbers.

    Args:
        decoder_layer: the layer that is copied, a ``TransformerDecoderLayer`` or something that is called like one.
        num_layers: how many copies there are.
        norm: a module that is applied to the answer of the last one, or ``None``.

    Called as ``TransformerDecoderLayer`` is; every layer gets the same ``memory`` and masks.

    Errors:
        DTypeError: no layer is given. ArgumentError: a number of layers that is no whole number.

    Example:
        >>> import metafuse as mf
        >>> decoder = mf.nn.TransformerDecoder(mf.nn.TransformerDecoderLayer(8, 2, 16), 2)
        >>> decoder(mf.ones([5, 3, 8]), mf.ones([7, 3, 8])).shape
        (5, 3, 8)

    Source: Vaswani et al. 2017.
    """

    def __init__(self, decoder_layer: Any, num_layers: int, norm: Any = None) -> None:
        super().__init__(decoder_layer, num_layers, norm)

    def execute(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Any:
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        for layer in self.layers:
            tgt = layer(tgt, memory, *masks, bool(tgt_is_causal), bool(memory_is_causal))
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """An encoder and a decoder that looks at what the encoder answers.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias: of every layer, as in
            ``TransformerEncoderLayer``.
        num_encoder_layers, num_decoder_layers: how many there are.
        custom_encoder, custom_decoder: modules in the place of the stacks.

    Called with ``(src, tgt, src_mask=None, tgt_mask=None, memory_mask=None, src_key_padding_mask=None,
    tgt_key_padding_mask=None, memory_key_padding_mask=None, src_is_causal=None, tgt_is_causal=None, memory_is_causal=False)`` it
    answers the shape of ``tgt``. Matrices begin uniform after Glorot.

    Errors:
        ArgumentError: sizes that are not whole numbers or do not divide, an unknown activation.

    Example:
        >>> import metafuse as mf
        >>> net = mf.nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
        >>> net(mf.ones([3, 7, 8]), mf.ones([3, 5, 8]), tgt_mask=net.generate_square_subsequent_mask(5)).shape
        (3, 5, 8)

    Source: Vaswani et al. 2017.
    """

    _shown = ("d_model", "nhead", "batch_first")

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Any = "relu",
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ) -> None:
        self.d_model = integer("Transformer", "d_model", d_model, 1)
        self.nhead = integer("Transformer", "nhead", nhead, 1)
        self.batch_first = check_flag("Transformer", "batch_first", batch_first)
        sizes = (self.d_model, self.nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first)

        for name, given in (("custom_encoder", custom_encoder), ("custom_decoder", custom_decoder)):
            if given is not None and not callable(given):
                raise DTypeError(f"[Transformer] {name} must be a module, got {type(given).__name__}")

        def norm() -> LayerNorm:
            return LayerNorm(self.d_model, layer_norm_eps, bias=bias)

        self.encoder = (
            TransformerEncoder(TransformerEncoderLayer(*sizes, norm_first, bias), num_encoder_layers, norm())
            if custom_encoder is None
            else custom_encoder
        )
        self.decoder = (
            TransformerDecoder(TransformerDecoderLayer(*sizes, norm_first, bias), num_decoder_layers, norm())
            if custom_decoder is None
            else custom_decoder
        )
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def execute(
        self,
        src: Any,
        tgt: Any,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Any:
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return self.decoder(tgt, memory, *masks, tgt_is_causal, memory_is_causal)

    @staticmethod
    def generate_square_subsequent_mask(sz: int) -> Var:
        """float32 ``[sz, sz]`` that is added to scores: 0 for places up to one's own, minus infinity after it.

        Example:
            >>> import metafuse as mf
            >>> mf.nn.Transformer.generate_square_subsequent_mask(2).tolist()
            [[0.0, -inf], [0.0, 0.0]]
        """
        size = integer("generate_square_subsequent_mask", "sz", sz, 0)
        return triu(full([size, size], -np.inf), 1)  # type: ignore[no-any-return]
