"""Resizing and sampling against PyTorch: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn

torch = pytest.importorskip("torch")
F = torch.nn.functional


def close(found, expected, name=""):
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=2e-4, atol=2e-5, err_msg=name)


def both(ours, theirs, *arrays):
    """Values and gradients with respect to all arrays."""
    a = [mf.array(v) for v in arrays]
    b = [torch.from_numpy(v).requires_grad_() for v in arrays]
    y, z = ours(*a), theirs(*b)
    assert tuple(y.shape) == tuple(z.shape)
    close(y, z, "value")
    weights = np.random.default_rng(5).standard_normal(tuple(z.shape)).astype(np.float32)
    (z * torch.from_numpy(weights)).sum().backward()
    for k, (g, v) in enumerate(zip(mf.grad((y * mf.array(weights)).sum(), a), b)):
        close(g, v.grad, f"gradient {k}")


def image(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("size", [(8, 12), (5, 3), (1, 1), (7, 6), (4, 6), (19, 2)])
@pytest.mark.parametrize(
    ("mode", "corners"),
    [
        ("nearest", None),
        ("bilinear", False),
        ("bilinear", True),
        ("bicubic", False),
        ("bicubic", True),
        ("area", None),
    ],
)
def test_images(size, mode, corners):
    both(
        lambda x: nn.interpolate(x, size, mode=mode, align_corners=bool(corners)),
        lambda x: F.interpolate(x, size, mode=mode, align_corners=corners),
        image(2, 3, 4, 6),
    )


@pytest.mark.parametrize("size", [14, 3])
@pytest.mark.parametrize(
    ("mode", "corners"), [("nearest", None), ("linear", False), ("linear", True), ("area", None)]
)
def test_sequences(size, mode, corners):
    both(
        lambda x: nn.interpolate(x, size, mode=mode, align_corners=bool(corners)),
        lambda x: F.interpolate(x, size, mode=mode, align_corners=corners),
        image(2, 3, 7),
    )


@pytest.mark.parametrize(
    ("mode", "corners"), [("nearest", None), ("trilinear", False), ("trilinear", True), ("area", None)]
)
def test_volumes(mode, corners):
    both(
        lambda x: nn.interpolate(x, (6, 5, 2), mode=mode, align_corners=bool(corners)),
        lambda x: F.interpolate(x, (6, 5, 2), mode=mode, align_corners=corners),
        image(1, 2, 3, 4, 5),
    )


LAYERS = {
    "nearest": (lambda: nn.Upsample(2), lambda: torch.nn.Upsample(scale_factor=2)),
    "bilinear": (
        lambda: nn.Upsample((2, 3), "bilinear", True),
        lambda: torch.nn.Upsample(scale_factor=(2, 3), mode="bilinear", align_corners=True),
    ),
    "nearest-2d": (lambda: nn.UpsamplingNearest2d(3), lambda: torch.nn.UpsamplingNearest2d(scale_factor=3)),
    "bilinear-2d": (
        lambda: nn.UpsamplingBilinear2d(2),
        lambda: torch.nn.UpsamplingBilinear2d(scale_factor=2),
    ),
    "resize": (
        lambda: nn.Resize((5, 9), "bilinear"),
        lambda: torch.nn.Upsample(size=(5, 9), mode="bilinear", align_corners=False),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    ours, theirs = LAYERS[name]
    both(ours(), theirs(), image(2, 3, 4, 6))


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_grid_sample(mode, padding, corners):
    grid = np.random.default_rng(1).uniform(-1.6, 1.6, (2, 5, 4, 2)).astype(np.float32)
    both(
        lambda x, g: nn.grid_sample(x, g, mode, padding, corners),
        lambda x, g: F.grid_sample(x, g, mode, padding, corners),
        image(2, 3, 6, 7),
        grid,
    )


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_of_volumes(padding):
    grid = np.random.default_rng(1).uniform(-1.4, 1.4, (2, 2, 3, 4, 3)).astype(np.float32)
    both(
        lambda x, g: nn.grid_sample(x, g, "bilinear", padding),
        lambda x, g: F.grid_sample(x, g, "bilinear", padding, False),
        image(2, 2, 3, 4, 5),
        grid,
    )


@pytest.mark.filterwarnings("ignore:Since version 1.3.0")
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 1, 3), (2, 3, 2, 4, 3)])
def test_affine_grid(size, corners):
    spatial = len(size) - 2
    both(
        lambda t: nn.affine_grid(t, size, corners),
        lambda t: F.affine_grid(t, size, corners),
        image(2, spatial, spatial + 1),
    )


def test_a_spatial_transformer_learns_the_same():
    theta = np.array([[[1.1, 0.1, 0.2], [-0.1, 0.9, -0.1]]], np.float32)
    both(
        lambda t, x: nn.grid_sample(x, nn.affine_grid(t, (1, 2, 6, 5))),
        lambda t, x: F.grid_sample(x, F.affine_grid(t, (1, 2, 6, 5), False), align_corners=False),
        theta,
        image(1, 2, 7, 7),
    )
