"""Distributions against SciPy: densities, cumulative probabilities, entropies; divergences against integrals and sums; samples
by their cumulative distribution; gradients; errors."""

from __future__ import annotations

import numpy as np
import pytest

import metafuse as mf
from metafuse.distributions import (
    Categorical,
    GammaDistribution,
    Geometric,
    Normal,
    OneHotCategorical,
    Uniform,
    kl_divergence,
    simple_presum,
)
from metafuse.errors import ArgumentError, DTypeError, GradientError, ShapeError
from metafuse.ops.incomplete_gamma import igamma
from metafuse.testing import check_grads

stats = pytest.importorskip("scipy.stats")
special = pytest.importorskip("scipy.special")
integrate = pytest.importorskip("scipy.integrate")

close = np.testing.assert_allclose
RANDOM = np.random.default_rng(11)
MU, SIGMA = np.array([0.0, 1.5, -2.0]), np.array([1.0, 0.3, 4.0])
LOW, HIGH = np.array([0.0, -1.0]), np.array([2.0, 0.5])
P = np.array([0.2, 0.5, 0.9])
A, B = np.array([0.5, 1.0, 7.5]), np.array([2.0, 0.5, 1.0])
PROBS = np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])


@pytest.fixture(autouse=True)
def reference_backend():
    with mf.flag_scope(backend="reference"):
        mf.set_global_seed(7)
        yield


def v(x):
    return mf.array64(np.asarray(x, np.float64))


#: name -> (parameters, ours, SciPy's, where to look)
CONTINUOUS = {
    "normal": ((MU, SIGMA), Normal, lambda m, s: stats.norm(m, s), np.linspace(-6, 6, 9)),
    "uniform": ((LOW, HIGH), Uniform, lambda a, b: stats.uniform(a, b - a), np.array([-3, -1, -0.5, 0, 0.3, 1.9, 5])),
    "gamma": ((A, B), GammaDistribution, lambda a, b: stats.gamma(a, scale=1 / b), np.array([-1.0, 0.01, 0.5, 3, 20, 400])),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTINUOUS)
def test_densities(name):
    parameters, ours, theirs, places = CONTINUOUS[name]
    here, there = ours(*map(v, parameters)), theirs(*parameters)
    x = places[:, None]
    close(here.log_prob(v(x)).numpy(), there.logpdf(x), rtol=1e-9, atol=1e-12)
    close(here.cdf(v(x)).numpy(), there.cdf(x), rtol=1e-9, atol=1e-12)
    close(here.entropy().numpy(), there.entropy(), rtol=1e-9)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_samples_follow_the_distribution(name):
    parameters, ours, theirs, _ = CONTINUOUS[name]
    drawn = ours(*map(v, parameters)).sample([4000, len(parameters[0])])
    assert drawn.shape == (4000, len(parameters[0]))
    assert drawn.dtype == "float64"
    values = drawn.numpy()
    for k in range(values.shape[1]):
        one = theirs(*(p[k] for p in parameters))
        assert stats.kstest(values[:, k], one.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", CONTINUOUS)
def test_gradients_of_densities(name):
    parameters, ours, theirs, _ = CONTINUOUS[name]
    x = theirs(*parameters).ppf(0.3)  # inside, one per parameter
    check_grads(lambda *p: ours(*p[:-1]).log_prob(p[-1]), [*parameters, x], order=2)
    check_grads(lambda *p: ours(*p[:-1]).cdf(p[-1]), [*parameters, x])
    check_grads(lambda *p: ours(*p).entropy(), parameters)


def test_moments_of_gamma():
    d, there = GammaDistribution(v(A), v(B)), stats.gamma(A, scale=1 / B)
    close(d.mean().numpy(), there.mean())
    close(d.variance().numpy(), there.var())
    close(d.mode().numpy(), np.maximum(A - 1, 0) / B)


def test_the_density_of_gamma_at_zero():
    found = GammaDistribution(v([0.5, 1.0, 2.0]), v([3.0, 3.0, 3.0])).log_prob(v([0.0])).numpy()
    close(found, [np.inf, np.log(3.0), -np.inf])


def test_samples_of_normal_and_uniform_are_differentiable():
    sigma = v(SIGMA)
    mf.set_global_seed(3)
    z = Normal(0.0, 1.0).sample([3]).numpy()
    mf.set_global_seed(3)
    close(mf.grad(Normal(v(MU), sigma).sample().sum(), sigma).numpy(), z, rtol=1e-5)
    low = v(LOW)
    gradient = mf.grad(Uniform(low, v(HIGH)).sample().sum(), low).numpy()
    assert ((gradient >= 0) & (gradient <= 1)).all()
    assert not GammaDistribution(v(A), v(B)).sample().requires_grad


def test_samples_repeat_with_the_seed():
    for d in (
        Normal(0.0, 1.0),
        Uniform(0.0, 1.0),
        GammaDistribution(2.0, 1.0),
        Geometric(0.3),
        Categorical([0.5, 0.5]),
    ):
        mf.set_global_seed(5)
        first, second = d.sample([20]).numpy(), d.sample([20]).numpy()
        mf.set_global_seed(5)
        np.testing.assert_array_equal(d.sample([20]).numpy(), first)
        assert (first != second).any()


# -- whole numbers -------------------------------------------------------------------------------------------------
def test_geometric():
    d, there = Geometric(v(P)), stats.geom(P, -1)  # SciPy counts trials, this one failures
    x = np.array([0, 1, 2, 30])[:, None]
    close(d.log_prob(v(x)).numpy(), there.logpmf(x), rtol=1e-9)
    close(d.log_prob(v([[-1.0], [0.5]])).numpy(), np.full((2, 3), -np.inf))
    close(d.cdf(v([[-0.5], [0.0], [2.7]])).numpy(), there.cdf([[-0.5], [0.0], [2.7]]), rtol=1e-9)
    close(d.entropy().numpy(), there.entropy(), rtol=1e-6)
    same = Geometric(logits=v(np.log(P / (1 - P))))
    close(same.log_prob(v(x)).numpy(), there.logpmf(x), rtol=1e-9)
    close(same.p.numpy(), P)
    check_grads(lambda p: Geometric(p).log_prob(v([0.0, 1.0, 5.0])), [P], order=2)
    check_grads(lambda p: Geometric(logits=p).entropy(), [P], order=2)
    drawn = d.sample([3000, 3])
    assert drawn.dtype == "int32"
    values = drawn.numpy()
    close(values.mean(0), there.mean(), rtol=0.1, atol=0.02)
    assert (values.min(0) == 0).all()


def test_geometric_with_certain_success():
    d = Geometric(v([1.0]))
    assert not d.sample([50]).numpy().any()
    close(d.log_prob(v([0.0, 1.0])).numpy(), [0.0, -np.inf])
    close(d.entropy().numpy(), [0.0])


def test_categorical():
    d = Categorical(v(PROBS * 4))  # divided by the sum
    close(d.probs.numpy(), PROBS)
    close(d.logits.numpy(), np.log(PROBS))
    x = np.array([[0, 2], [1, 1], [2, 0]])
    close(d.log_prob(mf.array(x)).numpy(), np.log(PROBS)[[0, 1], x])
    close(d.log_prob(mf.array([3, -1])).numpy(), [-np.inf, -np.inf])
    close(d.entropy().numpy(), stats.entropy(PROBS, axis=1))
    logits = RANDOM.standard_normal((2, 3))
    close(Categorical(logits=v(logits)).probs.numpy(), special.softmax(logits, 1))
    check_grads(lambda p: Categorical(p).log_prob(mf.array(x)), [PROBS], order=2)
    check_grads(lambda p: Categorical(logits=p).entropy(), [logits], order=2)
    drawn = d.sample([4000])
    assert (drawn.shape, drawn.dtype) == ((4000, 2), "int32")
    counts = np.stack([np.bincount(drawn.numpy()[:, k], minlength=3) for k in range(2)])
    assert stats.chisquare(counts, PROBS * 4000, axis=1).pvalue.min() > 1e-3


def test_one_hot_categorical():
    d = OneHotCategorical(v(PROBS))
    rows = d.sample([500])
    assert rows.shape == (500, 2, 3)
    assert rows.dtype == "float64"
    values = rows.numpy()
    np.testing.assert_array_equal(values.sum(-1), np.ones((500, 2)))
    np.testing.assert_array_equal(np.unique(values), [0, 1])
    close(values.mean(0), PROBS, atol=0.1)
    close(d.log_prob(rows).numpy(), np.log((PROBS * values).sum(-1)))
    close(d.entropy().numpy(), stats.entropy(PROBS, axis=1))


def test_impossible_categories():
    d = Categorical(v([0.0, 1.0]))
    close(d.log_prob(mf.array([0, 1])).numpy(), [-np.inf, 0.0])
    close(d.entropy().numpy(), [0.0])
    assert d.sample([100]).numpy().all()
    p = v([0.0, 1.0])
    assert np.isfinite(mf.grad(Categorical(p).entropy(), p).numpy()).all()


def test_sums_of_what_comes_before():
    x = RANDOM.standard_normal((2, 40))
    expected = np.concatenate([np.zeros((2, 1)), np.cumsum(x, 1)], 1)
    close(simple_presum(v(x)).numpy(), expected, atol=1e-12)
    check_grads(simple_presum, [x])
    close(simple_presum(mf.zeros(0)).numpy(), [0.0])


# -- divergences ---------------------------------------------------------------------------------------------------
def test_divergence_of_continuous_families():
    for name in ("normal", "gamma"):
        parameters, ours, theirs, _ = CONTINUOUS[name]
        others = [p[::-1].copy() for p in parameters]
        p, q = ours(*map(v, parameters)), ours(*map(v, others))
        one, two = theirs(*parameters), theirs(*others)

        def integrand(u, one=one, two=two):  # over quantiles
            x = one.ppf(u)
            return one.logpdf(x) - two.logpdf(x)

        expected = integrate.quad_vec(integrand, 1e-13, 1 - 1e-13, epsrel=1e-9)[0]
        close(kl_divergence(p, q).numpy(), expected, rtol=1e-6)
    close(kl_divergence(Uniform(0.0, 1.0), Uniform(-1.0, 3.0)).numpy(), [np.log(4.0)], rtol=1e-6)
    close(kl_divergence(Uniform(0.0, 1.0), Uniform(0.5, 3.0)).numpy(), [np.inf])


def test_divergence_of_discrete_families():
    other = PROBS[::-1].copy()
    for family in (Categorical, OneHotCategorical):
        close(kl_divergence(family(v(PROBS)), family(v(other))).numpy(), stats.entropy(PROBS, other, axis=1))
    close(kl_divergence(Categorical([0.0, 1.0]), Categorical([0.5, 0.5])).numpy(), [np.log(2.0)], rtol=1e-6)
    assert kl_divergence(Categorical([0.5, 0.5]), Categorical([0.0, 1.0])).item() == np.inf
    x = np.arange(2000)[:, None]
    one, two = stats.geom(P, -1), stats.geom(P[::-1], -1)
    with np.errstate(all="ignore"):
        terms = np.nan_to_num(one.pmf(x) * (one.logpmf(x) - two.logpmf(x)))
    close(kl_divergence(Geometric(v(P)), Geometric(v(P[::-1]))).numpy(), terms.sum(0), rtol=1e-8)


def test_gradients_of_divergences():
    check_grads(lambda a, b: kl_divergence(Normal(a, b), Normal(b, a + 3)), [MU, SIGMA], order=2)
    check_grads(lambda a, b: kl_divergence(GammaDistribution(a, b), GammaDistribution(b, a)), [A, B], order=2)
    check_grads(lambda p, q: kl_divergence(Geometric(p), Geometric(q)), [P, P[::-1]], order=2)
    check_grads(
        lambda p, q: kl_divergence(Categorical(logits=p), Categorical(logits=q)),
        [PROBS, PROBS[::-1]],
        order=2,
    )


# -- the incomplete gamma function -----------------------------------------------------------------------------------
def test_igamma():
    a, x = np.meshgrid(
        [1e-3, 0.1, 1.0, 2.5, 30.0, 1e3, 1e5], [0.0, 1e-6, 0.3, 1.0, 5.0, 90.0, 1e3, 1.01e5, np.inf]
    )
    close(igamma(v(a), v(x)).numpy(), special.gammainc(a, x), rtol=1e-9, atol=1e-12)
    assert np.isnan(igamma(v([0.0, -1.0, 1.0]), v([1.0, 1.0, -1.0])).numpy()).all()
    points = [np.array([0.5, 2.0, 7.0]), np.array([0.3, 2.5, 9.0])]
    check_grads(igamma, points)
    check_grads(lambda x: igamma(v(points[0]).stop_grad(), x), points[1:], order=2)
    alpha = v([2.0])
    slope = mf.grad(igamma(alpha, v([1.0])), alpha)
    with pytest.raises(GradientError, match="second derivatives"):
        mf.grad(slope, alpha)


# -- arguments -----------------------------------------------------------------------------------------------------
def test_numbers_and_shapes():
    assert Normal(0, 1).sample().shape == (1,)
    assert Normal(v(MU), 1.0).sample().shape == (3,)
    assert Normal(v(MU), 1.0).sample([2, 3]).shape == (2, 3)
    assert Categorical([0.5, 0.5]).sample().shape == (1,)
    assert OneHotCategorical([0.5, 0.5]).sample().shape == (2,)
    assert Uniform(mf.zeros(0), 1.0).sample([4, 0]).numpy().shape == (4, 0)
    assert GammaDistribution(mf.ones(2).cast("float16"), 1.0).sample().dtype == "float16"


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda: Normal(0.0, 0.0), ArgumentError, "sigma must be > 0, got 0.0"),
        (lambda: Normal(0.0, None), DTypeError, "sigma must be a number"),
        (lambda: Normal(mf.ones(2), mf.ones(3)), ShapeError, "Normal"),
        (lambda: Normal(mf.ones(3), 1.0).sample([2]), ShapeError, r"\[2\]"),
        (lambda: Normal(mf.ones(3), 1.0).sample([3, 1]), ShapeError, "end the shape in theirs"),
        (lambda: Uniform(1.0, 1.0), ArgumentError, "larger than low"),
        (lambda: Geometric(1.5), ArgumentError, r"p must be in \(0, 1\], got 1.5"),
        (lambda: Geometric(), ArgumentError, "either p or logits, got neither"),
        (lambda: Categorical([0.5], [0.5]), ArgumentError, "either probs or logits, got both"),
        (lambda: Categorical(mf.zeros(2, 0)), ShapeError, "at least one category"),
        (lambda: Categorical([0.5, 0.5]).log_prob(mf.array([0.5])), DTypeError, "must be integers"),
        (lambda: OneHotCategorical([0.5, 0.5]).log_prob(mf.ones(3)), ShapeError, "end in 2 categories"),
        (lambda: GammaDistribution(-1, 1.0), ArgumentError, "concentration must be > 0"),
        (
            lambda: GammaDistribution(mf.array([-1.0]), 1.0).sample().numpy(),
            ArgumentError,
            "concentration must be > 0",
        ),
        (lambda: kl_divergence(Normal(0, 1), Uniform(0, 1)), DTypeError, "got Normal and Uniform"),
    ],
)
def test_errors(function, error, words):
    with pytest.raises(error, match=words):
        function()
