"""Recurrent, resizing, sampling and further layers: values, second gradients, what is rejected, how many kernels they take."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse import nn
from metafuse.config import flag_scope, flags
from metafuse.errors import ArgumentError, DTypeError, GradientError, MetafuseError, ShapeError
from metafuse.plugins.registry import registry
from metafuse.runtime import executor

RANDOM = np.random.default_rng(0)


def values(*shape):
    return RANDOM.standard_normal(shape)


@pytest.fixture
def reference():
    """Few numbers, many kernels: the backend that needs no compiler."""
    mf.sync_all()
    with flag_scope(backend="reference"):
        yield
        mf.sync_all()


# -- recurrent ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_gradient_of_a_gradient_of_a_sequence(reference, name, gates):
    function = getattr(nn, f"{name}_sequence")
    shapes = [(3, 2, 3), (2, 2), (2, 2), (gates * 2, 3), (gates * 2, 2), (gates * 2,), (gates * 2,)]
    if name != "lstm":
        del shapes[2]
    arrays, weights, directions = ([values(*s) for s in shapes] for _ in range(3))

    def first(step):
        v = [mf.array64(a + step * d) for a, d in zip(arrays, directions)]
        outputs = function(*v)
        loss = (outputs[0] ** 3).sum() + (outputs[-1] * outputs[-1]).sum()
        return v, mf.grad(loss, v)

    def along(step):
        return sum((g.numpy() * w).sum() for g, w in zip(first(step)[1], weights))

    v, gradients = first(0.0)
    second = mf.grad(sum((g * mf.array64(w)).sum() for g, w in zip(gradients, weights)), v)
    found = sum((g.numpy() * d).sum() for g, d in zip(second, directions))
    assert found == pytest.approx((along(1e-5) - along(-1e-5)) / 2e-5, rel=1e-5)


def test_names_of_recurrent_weights():
    names = list(nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2).state_dict())
    parts = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
    assert names == [f"{p}_l{k}{end}" for k in (0, 1) for end in ("", "_reverse") for p in parts]
    assert list(nn.GRUCell(2, 3, bias=False).state_dict()) == ["weight_ih", "weight_hh"]


def test_steps_of_a_layer_are_its_sequence():
    mf.set_global_seed(0)
    for layer, state in (
        (nn.RNN(3, 4, nonlinearity="relu"), mf.zeros([2, 4])),
        (nn.GRU(3, 4), mf.zeros([2, 4])),
        (nn.LSTM(3, 4, proj_size=2), (mf.zeros([2, 2]), mf.zeros([2, 4]))),
    ):
        x = mf.array(values(5, 2, 3).astype(np.float32))
        y = layer(x)[0].numpy()
        for t in range(5):
            state = layer.call_rnn_cell(x[t], state, "l0")
            now = state[0] if isinstance(state, tuple) else state
            np.testing.assert_allclose(now.numpy(), y[t], rtol=1e-5, atol=1e-6)
        outputs, last = layer.call_rnn_sequence(x, (mf.zeros([2, 2]), mf.zeros([2, 4])) if isinstance(state, tuple)
                                                else mf.zeros([2, 4]), "l0")  # fmt: skip
        np.testing.assert_allclose(outputs.numpy(), y, rtol=1e-6)
        assert isinstance(last, tuple) == isinstance(state, tuple)


def test_dropout_between_levels_acts_in_training_only():
    mf.set_global_seed(0)
    layer = nn.RNN(3, 8, num_layers=2, dropout=0.5)
    x = mf.array(values(4, 2, 3).astype(np.float32))
    assert not np.array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())


def test_kernels_of_a_sequence_do_not_depend_on_its_length():
    """Longer sequences launch more, but compile nothing: one step is as another."""
    layer = nn.LSTM(8, 16)

    def kernels(length):
        mf.sync_all()
        x = mf.array(values(length, 2, 8).astype(np.float32))
        loss = (layer(x)[0] ** 2).sum()
        mf.sync([loss, *mf.grad(loss, layer.parameters())])
        steps = executor.last_program[0].plan.steps
        return {step.kernel.name if hasattr(step, "kernel") else "loop" for step in steps}, len(steps)

    with flag_scope(backend="null"):
        layer.parameters()
        mf.sync_all()
        short, few = kernels(10)
        long, many = kernels(20)
        mf.sync_all()
    assert long == short
    assert many <= few + 10 * 16


# -- resizing and sampling ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_resizing_takes_a_kernel_per_dimension(mode):
    x = mf.array(values(2, 3, 8, 8).astype(np.float32)).start_grad()
    with flag_scope(backend="null"):
        mf.sync_all()
        y = nn.interpolate(x, (16, 12), mode=mode).sync()
        assert len(executor.last_program[0].plan.steps) <= 2
        g = mf.grad(y * y, x).sync()
        assert len(executor.last_program[0].plan.steps) <= 3
        mf.sync_all()
    assert g.shape == x.shape


def test_resizing_keeps_what_it_should():
    x = values(1, 2, 5, 7)
    np.testing.assert_array_equal(nn.interpolate(mf.array64(x), (5, 7)).numpy(), x)
    line = nn.interpolate(mf.array64(np.arange(5.0).reshape(1, 1, 5)), 9, mode="linear", align_corners=True)
    np.testing.assert_allclose(line.numpy().ravel(), np.linspace(0, 4, 9))
    assert nn.interpolate(mf.array([[[1, 2]]]), 4, mode="nearest").numpy().tolist() == [[[1, 1, 2, 2]]]
    ones = nn.interpolate(mf.ones([1, 1, 3, 3]), (7, 2), mode="bicubic").numpy()
    np.testing.assert_allclose(ones, 1, rtol=1e-6)


def test_the_identity_grid_reads_the_image():
    x = values(2, 3, 4, 5)
    theta = np.tile(np.eye(2, 3), (2, 1, 1))
    for corners in (False, True):
        grid = nn.affine_grid(mf.array64(theta), (2, 3, 4, 5), corners)
        y = nn.grid_sample(mf.array64(x), grid, align_corners=corners)
        np.testing.assert_allclose(y.numpy(), x, atol=1e-12)
    grid = nn.make_base_grid_4D(mf.array64(theta), 2, 3, 4, 5, True)
    assert grid.shape == (2, 4, 5, 3)
    np.testing.assert_allclose(
        grid[..., :2].numpy(), nn.affine_grid(mf.array64(theta), (2, 3, 4, 5), True).numpy()
    )
    assert nn.make_base_grid_5D(mf.array64(theta), 2, 3, 2, 4, 5, True).shape == (2, 2, 4, 5, 4)
    np.testing.assert_allclose(nn.grid_sample_v0(mf.array64(x), grid[..., :2]).numpy(), x, atol=1e-12)


def test_coordinates():
    x = mf.array([-2.5, -0.5, 0.0, 1.5, 4.0, 7.0])
    assert nn.clip_coordinates(x, 4).numpy().tolist() == [0, 0, 0, 1.5, 3, 3]
    assert nn.reflect_coordinates(x, 0, 6).numpy().tolist() == [2.5, 0.5, 0, 1.5, 2, 1]
    assert nn.reflect_coordinates(x, -1, 7).numpy().tolist() == [1.5, -0.5, 0, 1.5, 3, 0]
    place = nn.grid_sampler_compute_source_index(mf.array([-1.0, 0.0, 1.0]), 4, "zeros", False)
    assert place.numpy().tolist() == [-0.5, 1.5, 3.5]


# -- CTC ----------------------------------------------------------------------------------------------------------
def test_ctc_counts_every_alignment():
    """Against the sum over all 3**4 paths of labels."""
    scores = np.log(RANDOM.dirichlet(np.ones(3), size=(4, 1)))
    target = [2, 1]
    total = 0.0
    for path in np.ndindex(3, 3, 3, 3):
        merged = [c for k, c in enumerate(path) if c and (k == 0 or path[k - 1] != c)]
        if merged == target:
            total += np.exp(sum(scores[t, 0, c] for t, c in enumerate(path)))
    assert nn.ctc_loss(mf.array64(scores), [target], [4], [2]).item() == pytest.approx(-np.log(total) / 2)


def test_gradient_of_a_gradient_of_ctc(reference):
    scores, weights, direction = values(4, 2, 3), values(4, 2, 3), values(4, 2, 3)

    def first(step):
        v = mf.array64(scores + step * direction)
        return v, mf.grad(nn.ctc_loss(v, [[1, 2], [2, 2]], [4, 3], [2, 1]) ** 2, v)

    v, g = first(0.0)
    second = mf.grad((g * mf.array64(weights)).sum(), v).numpy()
    slope = [(first(s)[1].numpy() * weights).sum() for s in (1e-5, -1e-5)]
    assert (second * direction).sum() == pytest.approx((slope[0] - slope[1]) / 2e-5, rel=1e-5)


def test_ctc_of_certain_outputs_is_finite():
    scores = mf.array([[[0.0, -np.inf]], [[-np.inf, 0.0]]])
    loss = nn.ctc_loss(scores, [[1]], [2], [1])
    assert loss.item() == 0
    assert np.isfinite(mf.grad(loss, scores).numpy()).all()


# -- helpers ------------------------------------------------------------------------------------------------------
def test_helpers():
    with pytest.raises(GradientError, match=r"optimizer.step\(loss\)"):
        nn.backward(mf.ones([1]))
    assert nn.get_init_var_rand([3, 4], "float64").dtype == "float64"
    layer = nn.skip_init(nn.BatchNorm, 3)
    assert not layer.weight.numpy().any()
    assert layer.weight.requires_grad
    assert not layer.running_mean.requires_grad
    with pytest.raises(DTypeError, match="skip_init"):
        nn.skip_init(lambda: None)
    seen = []
    guarded = nn.fp32_guard(lambda x: seen.append(x.dtype) or x * 2)
    assert guarded(mf.ones([2]).float16()).dtype == "float16"
    assert seen == ["float32"]
    z = nn.polar(mf.array([2.0]), mf.array([np.pi / 2]))
    np.testing.assert_allclose(nn.view_as_real(z).numpy(), [[0, 2]], atol=1e-6)


def test_hooks_on_the_way_to_inputs_are_called():
    layer, seen = nn.Linear(3, 2), []
    layer.register_input_backward_hook(lambda module, gradients: seen.append(gradients[0].shape))
    x = mf.ones([4, 3])
    optimizer = mf.optim.SGD(layer.parameters(), 0.1)
    optimizer.backward(layer(x).sum())
    assert seen == []
    optimizer.set_input_into_param_group([x])
    before = x.numpy().copy()
    optimizer.step(layer(x).sum())
    assert seen == [(4, 3)]
    np.testing.assert_array_equal(x.numpy(), before)
    optimizer.set_input_into_param_group([])
    optimizer.step(layer(x).sum())
    assert len(seen) == 1
    with pytest.raises(DTypeError, match=r"\[SGD\] inputs must hold Vars"):
        optimizer.set_input_into_param_group([1])


def test_cuda_is_the_flag():
    usable = {status.descriptor.name for status in registry().backends() if status.usable}
    layer, before = nn.Linear(2, 2), flags.use_cuda
    if "cuda" in usable:
        try:
            assert layer.cuda() is layer
            assert flags.use_cuda == 1
        finally:
            flags.use_cuda = before
    else:
        with pytest.raises(MetafuseError, match="cuda"):
            layer.cuda()
        assert flags.use_cuda == before


# -- what is rejected ---------------------------------------------------------------------------------------------
X = mf.zeros([2, 4, 8, 8])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LSTM(3, 0), r"\[LSTM\] hidden_size must be >= 1, got 0"),
        (lambda: nn.GRU(0, 3), r"\[GRU\] input_size must be >= 1, got 0"),
        (lambda: nn.RNN(3, 3, num_layers=0), r"\[RNN\] num_layers must be >= 1, got 0"),
        (lambda: nn.RNN(3, 3, nonlinearity="gelu"), r"\[RNN\] nonlinearity must be one of tanh, relu"),
        (lambda: nn.LSTM(3, 4, proj_size=4), r"\[LSTM\] proj_size needs"),
        (lambda: nn.LSTM(3, 4, dropout=1.5), r"\[LSTM\] dropout must be a number from 0 to 1"),
        (lambda: nn.RNNBase("CNN", 3, 4), r"\[RNNBase\] mode must be one of"),
        (lambda: nn.LSTMCell(3, -1), r"\[LSTMCell\] hidden_size must be >= 1, got -1"),
        (lambda: nn.LSTM(3, 4)(mf.zeros([5, 2])), r"\[LSTM\] input must have 3 dimensions"),
        (lambda: nn.LSTM(3, 4)(mf.zeros([5, 2, 4])), r"\[LSTM\] input must be .* with input_size 3"),
        (lambda: nn.LSTM(3, 4)(mf.zeros([0, 2, 3])), r"\[LSTM\] input must have at least one step"),
        (lambda: nn.LSTM(3, 4)(mf.zeros([5, 2, 3]), mf.zeros([1, 2, 4])), r"\[LSTM\] hx must be a pair"),
        (lambda: nn.GRU(3, 4)(mf.zeros([5, 2, 3]), mf.zeros([1, 3, 4])), r"\[GRU\] h must have shape \(1, 2, 4\)"),
        (lambda: nn.RNNCell(3, 4)(mf.zeros([2, 5])), r"\[rnn_cell\] weight_ih must have shape"),
        (lambda: nn.gru_cell(mf.zeros([2, 3]), mf.zeros([2, 4]), mf.zeros([11, 3]), mf.zeros([12, 4])), "gru_cell"),
        (lambda: nn.lstm_cell(mf.array([[1, 2]]), X, X, X, X), r"\[lstm_cell\] x must be floating point"),
        (lambda: nn.Upsample(0), r"\[Upsample\] scale_factor must be a number > 0"),
        (lambda: nn.Upsample(2, "cubic"), r"\[Upsample\] mode must be one of"),
        (lambda: nn.Resize((0, 3)), r"\[Resize\] size must be >= 1, got 0"),
        (lambda: nn.interpolate(X), r"\[interpolate\] give either size or scale_factor"),
        (lambda: nn.interpolate(X, 3, 2.0), r"\[interpolate\] give either size or scale_factor"),
        (lambda: nn.interpolate(X, (1, 2, 3)), r"\[interpolate\] size must be an integer or 2 integers"),
        (lambda: nn.interpolate(X, scale_factor=0.01), r"\[interpolate\] nothing would be left"),
        (lambda: nn.interpolate(mf.zeros([1, 1, 3]), 3, mode="bicubic"), r"'bicubic' needs images"),
        (lambda: nn.interpolate(mf.array([[[1, 2]]]), 3), r"\[interpolate\] mode 'bilinear' needs floating point"),
        (lambda: nn.grid_sample(X, mf.zeros([2, 3, 3, 3])), r"\[grid_sample\] grid must be \[2, ..., 2\]"),
        (lambda: nn.grid_sample(X, mf.zeros([2, 3, 3, 2]), "cubic"), r"\[grid_sample\] mode must be one of"),
        (lambda: nn.grid_sample(X, mf.zeros([2, 3, 3, 2]), padding_mode="wrap"), "padding_mode must be one of"),
        (lambda: nn.affine_grid(mf.zeros([1, 2, 3]), (2, 3, 4, 5)), r"\[affine_grid\] theta must be .*\(2, 2, 3\)"),
        (lambda: nn.affine_grid(mf.zeros([1, 2, 3]), (2, 3, 4)), r"\[affine_grid\] size must be"),
        (lambda: nn.affine_grid(mf.zeros([1, 2, 3]), (1, 3, 0, 4)), r"\[affine_grid\] H must be >= 1"),
        (lambda: nn.MaxUnpool2d(0), r"\[MaxUnpool2d\] kernel_size must be >= 1, got 0"),
        (lambda: nn.MaxUnpool2d(2)(X, X), r"\[max_unpool\] indices must be integers"),
        (lambda: nn.max_unpool(X, mf.zeros([2], "int32"), 2), r"\[max_unpool\] indices must have the shape"),
        (lambda: nn.ctc_loss(X, [[1]], [1], [1]), r"\[ctc_loss\] log_probs must have 3 dimensions"),
        (lambda: nn.ctc_loss(X[0], [[1]], [8], [1]), r"\[ctc_loss\] input_lengths must have shape \(8,\)"),
        (lambda: nn.ctc_loss(mf.zeros([3, 1, 2]), [[1]], [3], [1], blank=2), r"\[ctc_loss\] blank must be a class"),
        (lambda: nn.ctc_loss(mf.zeros([3, 1, 2]), [1], [3], [2]), r"\[ctc_loss\] targets must hold the 2 labels"),
        (lambda: nn.CTCLoss(reduction="best"), r"\[CTCLoss\] reduction must be one of"),
        (lambda: nn.Conv1d_sp(3, 4, 3), r"\[Conv1d_sp\] kernel_size must be 1, got 3"),
        (lambda: nn.DepthwiseConv(0), r"\[DepthwiseConv\] stride must be >= 1, got 0"),
        (lambda: nn.DepthwiseConv()(X, mf.zeros([6, 1, 3, 3])), r"\[DepthwiseConv\] weight must be \[multiple of 4"),
        (lambda: nn.Unflatten(1, (3, -1))(X), r"\[Unflatten\] dimension 1 of .* can't be cut"),
        (lambda: nn.pixel_unshuffle(X, 3), r"\[pixel_unshuffle\] height and width must be divisible"),
        (lambda: nn.channel_shuffle(X, 3), r"\[channel_shuffle\] x must be \[batch, multiple of 3"),
        (lambda: nn.glu(mf.zeros([3])), r"\[glu\] dimension -1 must have an even extent"),
        (lambda: nn.Hardtanh(1, 0), r"\[Hardtanh\] min_val must not exceed max_val"),
        (lambda: nn.CELU(0), r"\[CELU\] alpha must not be 0"),
        (lambda: nn.Softshrink(-1), r"\[Softshrink\] lambd must be >= 0"),
        (lambda: nn.HuberLoss(delta=0), r"\[HuberLoss\] delta must be > 0"),
        (lambda: nn.cosine_similarity(X, X[0]), r"\[cosine_similarity\] x2 must have the shape of x1"),
        (lambda: nn.AdaptiveMaxPool1d(0), r"\[AdaptiveMaxPool1d\] output_size must be >= 1"),
    ],
)  # fmt: skip
def test_what_is_rejected(make, message):
    with pytest.raises(MetafuseError, match=message) as caught:
        make()
    assert isinstance(caught.value, (ArgumentError, ShapeError, DTypeError))
