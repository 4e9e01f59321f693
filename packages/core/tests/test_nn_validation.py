"""Impossible arguments raise an error that names the operator, the argument and its value, when called or when made."""

from __future__ import annotations

import pytest

import metafuse as mf
from metafuse import nn
from metafuse.errors import ArgumentError, DTypeError, MetafuseError, ShapeError

X = (2, 4, 8, 8)
W = (6, 4, 3, 3)


def x(*shape):
    return mf.zeros(list(shape))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stride": (0, 1)}, ArgumentError, r"stride must be >= 1, got \(0, 1\)"),
        ({"stride": -1}, ArgumentError, r"stride must be >= 1, got -1"),
        ({"padding": -1}, ArgumentError, r"padding must be >= 0, got -1"),
        ({"dilation": 0}, ArgumentError, r"dilation must be >= 1, got 0"),
        ({"groups": 0}, ArgumentError, r"groups must be >= 1, got 0"),
        ({"groups": 3}, ArgumentError, r"x has 4 channels, .* takes 12"),
        ({"stride": (1, 2, 3)}, ArgumentError, r"stride must be an integer or 2 integers, got \(1, 2, 3\)"),
        ({"dilation": 9}, ArgumentError, r"the window does not fit"),
        ({"stride": (1, 2**31)}, ArgumentError, r"stride must be < 2147483648, got \(1, 2147483648\)"),
        ({"groups": 2**31}, ArgumentError, r"groups must be < 2147483648, got 2147483648"),
        ({"stride": 1.5}, DTypeError, r"stride must be an integer or 2 integers, got 1.5"),
        ({"stride": "a"}, DTypeError, r"stride must be an integer or 2 integers, got 'a'"),
        ({"stride": True}, DTypeError, r"stride must be an integer"),
        (
            {"stride": (1, "b")},
            DTypeError,
            r"stride must be integers, got \(1, 'b'\); give whole numbers >= 1",
        ),
        ({"groups": 1.0}, DTypeError, r"groups must be an integer, got 1.0; give a whole number >= 1"),
    ],
)
def test_conv2d_arguments(arguments, error, message):
    with pytest.raises(error, match=r"\[conv2d\] " + message):
        nn.conv2d(x(*X), x(*W), **arguments)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: nn.conv2d(x(4, 8, 8), x(*W)), ShapeError),
        (lambda: nn.conv2d(x(*X), x(6, 4, 3)), ShapeError),
        (lambda: nn.conv2d(x(*X), x(*W), x(5)), ShapeError),
        (lambda: nn.conv2d(x(*X), x(6, 4, 0, 3)), ArgumentError),
        (lambda: nn.conv2d("x", x(*W)), DTypeError),
        (lambda: nn.conv_transpose(x(*X), x(4, 2, 3, 3), output_padding=1), ArgumentError),
        (lambda: nn.conv_transpose(x(*X), x(4, 2, 3, 3), padding=9), ShapeError),
        (lambda: nn.max_pool2d(x(*X), 0), ArgumentError),
        (lambda: nn.max_pool2d(x(*X), -1), ArgumentError),
        (lambda: nn.max_pool2d(x(*X), 2, 0), ArgumentError),
        (lambda: nn.max_pool2d(x(*X), 2, padding=-1), ArgumentError),
        (lambda: nn.max_pool2d(x(*X), 2, padding=2), ArgumentError),
        (lambda: nn.max_pool2d(x(*X), 9), ShapeError),
        (lambda: nn.max_pool2d(x(4, 8, 8), 2), ShapeError),
        (lambda: nn.pool(x(*X), 2, "median"), ArgumentError),
        (lambda: nn.avg_pool2d(mf.zeros(list(X), "int32"), 2), DTypeError),
        (lambda: nn.adaptive_avg_pool(x(*X), 0), ArgumentError),
        (lambda: nn.softmax(mf.array([1, 2]), 0), DTypeError),
        (lambda: nn.softmax(x(2, 2), 2), ShapeError),
        (lambda: nn.softplus(x(2), beta=0), ArgumentError),
        (lambda: nn.hardtanh(x(2), 1, -1), ArgumentError),
        (lambda: nn.dropout(x(2), 1.5), ArgumentError),
        (lambda: nn.dropout(x(2), "a"), ArgumentError),
        (lambda: nn.linear(x(2, 3), x(4, 5)), ShapeError),
        (lambda: nn.linear(x(2, 3), x(4, 3), x(3)), ShapeError),
        (lambda: nn.embedding(x(2), x(4, 3)), DTypeError),
        (lambda: nn.one_hot(mf.array([1]), 0), ArgumentError),
        (lambda: nn.pad(x(2, 3), (1,)), ArgumentError),
        (lambda: nn.pad(x(2, 3), (3, 0), "reflect"), ArgumentError),
        (lambda: nn.pad(x(2, 3), (1, 1), "mirror"), ArgumentError),
        (lambda: nn.pad(x(2, 3), (-2, -1)), ShapeError),
        (lambda: nn.cross_entropy_loss(x(2, 3), mf.array([1.0, 2.0])), DTypeError),
        (lambda: nn.cross_entropy_loss(x(2, 3), mf.array([1, 2, 0])), ShapeError),
        (lambda: nn.cross_entropy_loss(x(2, 3), mf.array([1, 2]), reduction="avg"), ArgumentError),
        (lambda: nn.mse_loss(x(2, 3), x(3)), ShapeError),
        (lambda: nn.batch_norm(x(2, 3), None, None), ArgumentError),
        (lambda: nn.batch_norm(x(2, 3), x(4), x(4)), ShapeError),
        (lambda: nn.layer_norm(x(2, 3), 4), ShapeError),
        (lambda: nn.group_norm(x(2, 3), 2), ArgumentError),
        (lambda: nn.batch_norm(x(2, 3), x(3), x(3), eps=-1), ArgumentError),
        (lambda: nn.pixel_shuffle(x(1, 3, 2, 2), 2), ShapeError),
        (lambda: nn.fold(x(1, 8, 5), (4, 4), 2, stride=2), ShapeError),
    ],
)
def test_functions(call, error):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith("["), caught.value


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv(0, 1, 3),
        lambda: nn.Conv(1, -1, 3),
        lambda: nn.Conv(1, 1, 0),
        lambda: nn.Conv(1, 1, 3, stride=0),
        lambda: nn.Conv(1, 1, 3, padding=-1),
        lambda: nn.Conv(1, 1, 3, dilation=0),
        lambda: nn.Conv(3, 4, 3, groups=2),
        lambda: nn.Conv(1, 1, (3, 3, 3)),
        lambda: nn.Conv(1, 1, 2.0),
        lambda: nn.ConvTranspose(1, 1, 3, output_padding=-1),
        lambda: nn.Linear(0, 1),
        lambda: nn.Linear(1, "2"),
        lambda: nn.Pool(0),
        lambda: nn.Pool(2, 0),
        lambda: nn.Pool(2, padding=2),
        lambda: nn.Pool(2, op="median"),
        lambda: nn.Pool(2, op="mean", return_indices=True),
        lambda: nn.AdaptiveAvgPool2d(0),
        lambda: nn.BatchNorm(0),
        lambda: nn.BatchNorm(1, eps=-1),
        lambda: nn.BatchNorm(1, momentum=2),
        lambda: nn.LayerNorm(0),
        lambda: nn.LayerNorm(()),
        lambda: nn.GroupNorm(3, 4),
        lambda: nn.Dropout(-0.1),
        lambda: nn.Embedding(0, 1),
        lambda: nn.Embedding(3, 1, padding_idx=3),
        lambda: nn.LeakyReLU("a"),
        lambda: nn.Softplus(0),
        lambda: nn.PixelShuffle(0),
        lambda: nn.MSELoss("avg"),
    ],
)
def test_layers_refuse_when_made(make):
    with pytest.raises((ArgumentError, DTypeError)) as caught:
        make()
    assert str(caught.value).startswith("["), caught.value


def test_layers_check_inputs():
    with pytest.raises(ShapeError, match=r"\[BatchNorm\] x must be \[batch, 3, ...\], got \(2, 4\)"):
        nn.BatchNorm(3)(x(2, 4))
    with pytest.raises(ShapeError, match=r"\[conv2d\] x has 3 channels"):
        nn.Conv(1, 2, 3)(x(1, 3, 8, 8))
    with pytest.raises(MetafuseError):
        nn.Flatten(2)(x(2, 3))
