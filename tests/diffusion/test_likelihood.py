"""The probability flow against closed forms: densities of mixtures, exact paths of Gaussians, sums over grey levels."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.special import betainc, xlog1py, xlogy

from lecturecode import seeded
from lecturecode.diffusion import (
    EDM,
    FLOW,
    VELOCITY,
    Cosine,
    Counted,
    Denoiser,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    Guided,
    Linear,
    Straight,
    VarianceExploding,
    VariancePreserving,
    decode,
    dequantise,
    encode,
    follow,
    log_likelihood,
    preconditioned,
    quantise,
    quantised_log_prob,
)
from lecturecode.diffusion.ode import integrate
from lecturecode.rng import normal

F64 = torch.float64
ALL = {
    "straight": Straight(),
    "preserving": VariancePreserving(),
    "exploding": VarianceExploding(),
    "edm": EDM(),
    "linear": Linear(),
    "zero terminal": Cosine(50).zero_terminal(),
}
MATRICES = [[[0.05, 0.02], [0.02, 0.09]], [[0.1, 0.0], [0.0, 0.001]], [[0.2, -0.1], [-0.1, 0.2]]]
PURE = ["straight", "zero terminal"]


def mixture(schedule):
    """Three bells in two dimensions, one of them 0.03 thin."""
    weights, means = torch.tensor([0.5, 0.3, 0.2], dtype=F64), [[-1.0, 0.5], [1.0, 1.0], [0.3, -1.2]]
    return GaussianMixtureDenoiser(weights, torch.tensor(means, dtype=F64), torch.tensor(MATRICES, dtype=F64), schedule)


def line(schedule):
    """Two bells in one dimension."""
    means, variances = torch.tensor([[-1.0], [1.0]], dtype=F64), torch.tensor([0.05, 0.3], dtype=F64)
    return GaussianMixtureDenoiser(torch.tensor([0.3, 0.7], dtype=F64), means, variances, schedule)


def bell_density(x, means, covariances, weights):
    """log Σ w N(x; m, C), from the inverse and the determinant."""
    rows = []
    for m, c, w in zip(means, covariances, weights, strict=True):
        off, c = x - np.asarray(m), np.asarray(c)
        rows.append(np.log(w) - (off @ np.linalg.inv(c) * off).sum(1) / 2 - np.log(np.linalg.det(2 * np.pi * c)) / 2)
    return np.logaddexp.reduce(rows, 0)


# --- the integrator --------------------------------------------------------------------------------------------------


def test_the_pair_has_its_orders():
    """Four steps of an equation that is linear in x and no polynomial in s: a step of order 5 leaves h⁶."""

    def slope(x, s):
        return -x + math.cos(3 * s)

    def exact(s):
        return (3 * math.sin(3 * s) + math.cos(3 * s)) / 10 + (0.7 - 0.1) * math.exp(-s)

    left = []
    for h in (0.2, 0.1, 0.05):
        out, calls = integrate(slope, torch.tensor([[0.7]], dtype=F64), 0.0, h, 1e9)
        assert calls == 25  # 0.01 of the way, 0.05, 0.25 and the rest: the same shares at every h
        left.append(abs(out.item() - exact(h)))
    orders = np.log2(np.array(left[:-1]) / left[1:])
    assert np.all(np.abs(orders - 6) < 0.3)


def test_the_integrator_against_scipys():
    """Lotka and Volterra's equations, both ways, with the error near the tolerance that was asked for."""

    def slope(x, s):
        a, b = x.unbind(1)
        return torch.stack([a * (1.5 - b) + 0.1 * math.sin(s), b * (a - 3)], 1)

    start = torch.tensor([[1.0, 1.0], [2.0, 0.5]], dtype=F64)
    wanted = [
        solve_ivp(
            lambda s, x: [x[0] * (1.5 - x[1]) + 0.1 * math.sin(s), x[1] * (x[0] - 3)],
            (0, 5),
            row,
            method="DOP853",
            rtol=1e-12,
            atol=1e-12,
        ).y[:, -1]
        for row in start.numpy()
    ]
    errors, costs = [], []
    for tolerance in (1e-4, 1e-6, 1e-8, 1e-10):
        out, calls = integrate(slope, start, 0.0, 5.0, tolerance)
        errors.append(np.abs(out.numpy() - wanted).max())
        costs.append(calls)
        back, _ = integrate(slope, out, 5.0, 0.0, tolerance)
        assert (back - start).abs().max() < 1e3 * tolerance
    assert all(error < 100 * tolerance for error, tolerance in zip(errors, (1e-4, 1e-6, 1e-8, 1e-10), strict=True))
    assert costs == sorted(costs)
    assert costs[-1] < 20 * costs[0]  # 10^{6/5} as many steps for 10⁻⁶ of the error
    assert integrate(slope, start, 1.0, 1.0, 1e-3)[1] == 0


def test_a_slope_without_bound_is_named():
    with pytest.raises(FloatingPointError, match="raise the tolerance, or keep away"):
        integrate(lambda x, s: x / (1 - s), torch.ones(1, 1, dtype=F64), 0.0, 1.0, 1e-6)
    with pytest.raises(ValueError, match="tolerance has the value 0"):
        integrate(lambda x, s: x, torch.ones(1, 1, dtype=F64), 0.0, 1.0, 0.0)


# --- likelihoods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_density_of_a_mixture_within_a_millionth_of_a_nat(name):
    """From the mixture's own law at the end, at the default tolerance, against inverse and determinant."""
    bells = mixture(ALL[name])
    counted, x = Counted(bells), bells.sample(40, seeded(1))
    x = torch.cat([x, torch.tensor([[3.0, 3.0], [0.0, 0.0]], dtype=F64)])  # and where there are hardly any data
    found = log_likelihood(counted, x, end=lambda x: bells.log_prob(x, bells.schedule.end))
    means, weights = bells.means.numpy(), bells.weights.numpy()
    wanted = bell_density(x.numpy(), means, MATRICES, weights)
    assert np.abs(found.log_prob.numpy() - wanted).max() < 1e-6
    assert found.calls == counted.calls < 500
    assert found.standard_error.abs().max() == 0
    assert found.x_noise.shape == x.shape


@pytest.mark.parametrize("name", PURE)
def test_pure_noise_needs_no_other_end(name):
    """Where α_T = 0 the model's own noise end is the data's, and the default law is right as it stands."""
    bells = mixture(ALL[name])
    x = bells.sample(20, seeded(2))
    difference = log_likelihood(bells, x).log_prob - bells.log_prob(x, 0.0)
    assert difference.abs().max() < 1e-6


def test_a_lower_tolerance_is_an_exacter_density():
    bells = mixture(VariancePreserving())
    x = bells.sample(30, seeded(3))
    errors = []
    for tolerance in (1e-4, 1e-6, 1e-8):
        found = log_likelihood(bells, x, tolerance, end=lambda x: bells.log_prob(x, 1.0))
        errors.append((found.log_prob - bells.log_prob(x, 0.0)).abs().max().item())
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-7


def test_the_model_that_decodes_noise_sums_to_one():
    """With the noise end N(0, r²), which is not the data's own p_T, p is another density: by the trapezoid rule."""
    bells = line(VariancePreserving(0.1, 4.0))
    x = torch.linspace(-5, 6, 1101, dtype=F64)[:, None]
    density = log_likelihood(bells, x, 1e-8).log_prob.exp()
    assert (density.sum() * 0.01).item() == pytest.approx(1, abs=1e-8)
    assert (density - bells.log_prob(x, 0.0).exp()).abs().max() > 0.01


def test_it_is_the_density_of_what_decode_gives():
    """In one dimension by the change of variables: log p(x_0) = log N(x_T) + log dx_T/dx_0, by central differences."""
    bells = line(VarianceExploding(0.01, 5.0))
    x, h = torch.tensor([[-1.2], [-0.3], [0.4], [2.0]], dtype=F64), 1e-4
    found = log_likelihood(bells, x, 1e-10)
    slope = (encode(bells, x + h, 1e-11) - encode(bells, x - h, 1e-11))[:, 0] / (2 * h)
    variance = 1 + bells.schedule(1.0)[1].item() ** 2
    normal_law = -(found.x_noise[:, 0] ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2
    torch.testing.assert_close(found.log_prob, normal_law + slope.log(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["preserving", "straight", "exploding"])
def test_a_later_start_is_the_density_there(name):
    bells = mixture(ALL[name])
    for start in (0.05, 0.6):
        alpha, sigma = bells.schedule(start)
        x = alpha * bells.sample(20, seeded(4)) + sigma * normal((20, 2), seeded(5), alpha)
        found = log_likelihood(bells, x, start=start, end=lambda x: bells.log_prob(x, 1.0))
        torch.testing.assert_close(found.log_prob, bells.log_prob(x, start), rtol=0, atol=1e-6)
    at_the_end = log_likelihood(bells, x, start=1.0, end=lambda x: bells.log_prob(x, 1.0))
    assert at_the_end.calls == 0
    assert torch.equal(at_the_end.log_prob, bells.log_prob(x, 1.0))


def test_hutchinson_is_right_within_its_own_error():
    """A Gaussian's Jacobian is one matrix, so its two diagonals tell: probes see the others' squares as noise."""
    d, schedule = 6, VariancePreserving()
    root = normal((d, d), seeded(6), torch.zeros((), dtype=F64))
    model = GaussianDenoiser(torch.zeros(d, dtype=F64), root @ root.mT / d + 0.1 * torch.eye(d, dtype=F64), schedule)
    x = model.sample(50, seeded(7))
    wanted = model.log_prob(x, 0.0)
    found = log_likelihood(model, x, 1e-6, probes=64, rng=seeded(8), end=lambda x: model.log_prob(x, 1.0))
    score = (found.log_prob - wanted) / found.standard_error
    assert 0.02 < found.standard_error.mean() < 1
    assert score.abs().max() < 4.5
    assert 0.7 < score.square().mean().sqrt() < 1.3
    fewer = log_likelihood(model, x, 1e-6, probes=16, rng=seeded(8), end=lambda x: model.log_prob(x, 1.0))
    assert (fewer.standard_error / found.standard_error).mean().item() == pytest.approx(2, rel=0.15)


def test_hutchinson_has_no_error_where_the_jacobian_is_diagonal():
    """e_i² = 1 for signs, whatever they are: axis-parallel Gaussian data."""
    model = GaussianDenoiser(torch.ones(3, dtype=F64), torch.tensor([0.1, 1.0, 2.0], dtype=F64), Straight())
    x = model.sample(10, seeded(9))
    found = log_likelihood(model, x, probes=2, rng=seeded(1))
    torch.testing.assert_close(found.log_prob, model.log_prob(x, 0.0), rtol=0, atol=1e-6)
    assert found.standard_error.max() < 1e-10


def test_images_and_rows_are_the_same():
    """Any shape behind the first axis: the trace runs over all entries."""
    data = GaussianDenoiser(torch.zeros(4, dtype=F64), torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=F64), Straight())

    class Images:
        schedule = data.schedule

        def __call__(self, xt, t):
            return data(xt.flatten(1), t).reshape(xt.shape)

    x = data.sample(5, seeded(1))
    flat, images = log_likelihood(data, x), log_likelihood(Images(), x.reshape(5, 1, 2, 2))
    assert torch.equal(flat.log_prob, images.log_prob)
    assert images.x_noise.shape == (5, 1, 2, 2)


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_paths_of_a_gaussian_are_the_exact_ones(name):
    """Each direction keeps its number of standard deviations; the mean goes with α."""
    schedule = ALL[name]
    covariance = torch.tensor(MATRICES[0], dtype=F64)
    model = GaussianDenoiser(torch.tensor([0.5, -1.0], dtype=F64), covariance, schedule)
    x = normal((6, 2), seeded(1), covariance)
    for t, r in ((0.0, 1.0), (0.2, 0.7), (0.9, 0.1), (1.0, 0.0)):
        t, r = t * schedule.end, r * schedule.end
        xt = x * (1 if r > t else torch.hypot(*schedule(t)))
        (a, s), (b, u) = schedule(t), schedule(r)
        before, after = (np.linalg.eigh(c.numpy()) for c in (covariance, covariance))
        scale = np.sqrt((b.item() ** 2 * after[0] + u.item() ** 2) / (a.item() ** 2 * before[0] + s.item() ** 2))
        mean, basis = model.mean.numpy(), before[1]
        wanted = b.item() * mean + ((xt.numpy() - a.item() * mean) @ basis * scale) @ basis.T
        found = follow(model, xt, t, r, 1e-8).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=2e-6 * max(1, u.item() if u > 2 else 1))


@pytest.mark.parametrize("name", ALL)
def test_encoding_and_decoding_are_inverses(name):
    bells = mixture(ALL[name])
    x = bells.sample(20, seeded(1))
    assert (decode(bells, encode(bells, x, 1e-8), 1e-8) - x).abs().max() < 1e-6
    noise = torch.hypot(*bells.schedule(bells.schedule.end)) * normal((20, 2), seeded(2), x)
    size = noise.abs().max()
    assert ((encode(bells, decode(bells, noise, 1e-9), 1e-9) - noise) / size).abs().max() < 1e-5


def test_decoded_noise_is_the_data():
    """In one dimension the flow keeps the share that lies below: F_0(decode(x)) = Φ(x), up to the flow's own end."""
    bells = line(Straight())
    share = torch.linspace(0.01, 0.99, 25, dtype=F64)
    x = decode(bells, torch.special.ndtri(share)[:, None], 1e-9)
    below = 0.3 * torch.special.ndtr((x + 1) / 0.05**0.5) + 0.7 * torch.special.ndtr((x - 1) / 0.3**0.5)
    torch.testing.assert_close(below[:, 0], share, rtol=0, atol=1e-7)


def test_all_schedules_with_pure_noise_have_one_flow():
    """z = x/r over the angle knows the schedule by its ends only: straight and cosine paths lead to one noise."""
    x = mixture(Straight()).sample(10, seeded(1))
    one, two = (encode(mixture(ALL[name]), x, 1e-9) for name in PURE)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_guidance_can_be_followed():
    """Guided by 1 it is the class itself."""
    bells = mixture(Straight())
    x = bells.sample(5, seeded(1))
    one, guided = bells.given(1), Guided(bells.given(1), bells, 1.0)
    torch.testing.assert_close(encode(guided, x), encode(one, x), rtol=0, atol=1e-5)


class Levelled(torch.nn.Module):
    """A smooth network with fixed weights of two numbers and a level."""

    def __init__(self, dtype):
        super().__init__()
        start = seeded(11)
        self.first = torch.nn.Parameter(torch.randn(3, 16, generator=start).to(dtype))
        self.last = torch.nn.Parameter(torch.randn(16, 2, generator=start).to(dtype) / 8)

    def forward(self, x, level):
        return (torch.cat([x, level[:, None] / 10], 1) @ self.first).tanh() @ self.last


@pytest.mark.parametrize("asked", [VELOCITY, FLOW, preconditioned(1.0)], ids=lambda p: p.name)
def test_a_network_has_a_density_that_sums_to_one(asked):
    """Whatever it has learned: the trapezoid rule in the plane, which has no error to speak of for a smooth density."""
    model = Denoiser(Levelled(F64), Straight(), asked)
    axis = torch.linspace(-6, 6, 161, dtype=F64)
    found = log_likelihood(model, torch.cartesian_prod(axis, axis), 1e-5)
    assert (found.log_prob.exp().sum() * 0.075**2).item() == pytest.approx(1, abs=1e-4)
    assert not found.log_prob.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_follows_dtype_and_device(device, dtype):
    bells = mixture(Straight())
    x = bells.sample(10, seeded(1)).to(device, dtype)
    weights, means, matrices = (
        v.to(device, dtype) for v in (bells.weights, bells.means, torch.tensor(MATRICES, dtype=F64))
    )
    model = GaussianMixtureDenoiser(weights, means, matrices, Straight())
    found = log_likelihood(model, x, 1e-5)
    assert (found.log_prob.dtype, found.x_noise.dtype, found.log_prob.device.type) == (dtype, dtype, device.type)
    error = (found.log_prob.cpu().double() - bells.log_prob(x.cpu().double(), 0.0)).abs().max()
    assert error < (1e-4 if dtype == F64 else 5e-3)
    back = decode(model, found.x_noise, 1e-5)
    assert back.dtype == dtype
    assert (back - x).abs().max() < 1e-3


class Broken:
    schedule = Straight()

    def __call__(self, xt, t):
        return xt * math.nan if t < 0.5 else xt / 2


class Narrow(Broken):
    def __call__(self, xt, t):
        return xt[:, :1]


def test_bad_input_is_refused_at_the_door():
    bells, x = Counted(mixture(VariancePreserving())), torch.zeros(3, 2, dtype=F64)
    nan = x.clone()
    nan[1, 0] = math.nan
    for arguments, words in (
        (([0],), r"x\[1, 0\] is nan"),
        ((x, 0.0), "tolerance has the value 0"),
        ((x, 1e-3, 1, seeded(1)), "probes is 1"),
        ((x, 1e-3, 4, None), "rng=seeded"),
        ((x, 1e-3, None, None, None, 1.5), "outside the schedule"),
        ((x[0],), r"x has shape \(2,\)"),
    ):
        arguments = (nan,) if arguments == ([0],) else arguments
        with pytest.raises(ValueError, match=words):
            log_likelihood(bells, *arguments)
    for run in (encode, decode):
        with pytest.raises(ValueError, match=r"x\[1, 0\] is nan"):
            run(bells, nan)
    with pytest.raises(ValueError, match="outside the schedule"):
        follow(bells, x, 0.0, 1.1)
    assert bells.calls == 0
    with pytest.raises(ValueError, match=r"end gives shape \(\) for 3 rows"):
        log_likelihood(bells, x, 1e-2, end=lambda x: x.sum())
    with pytest.raises(ValueError, match=r"the denoiser gives shape \(3, 1\)"):
        encode(Narrow(), x)
    with pytest.raises(FloatingPointError, match=r"answer at t = 0\.\d+ is not finite"):
        decode(Broken(), x)


# --- grey levels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_level_comes_back_from_its_cell(levels, device, dtype):
    x = (torch.arange(levels, device=device) / (levels - 1)).to(dtype).repeat(4000, 1)
    y = dequantise(x, seeded(1), levels)
    assert (y.dtype, y.device.type) == (dtype, device.type)
    assert 0 <= y.min() < y.max() < 1
    assert torch.equal(quantise(y, levels), (x * (levels - 1)).round() / (levels - 1))
    assert (y * levels - (x * (levels - 1)).round()).mean().item() == pytest.approx(0.5, abs=0.02)
    outside = torch.tensor([-0.3, 1.0, 7.0], device=device, dtype=dtype)
    assert quantise(outside, levels).tolist() == [0, 1, 1]


def test_a_density_that_is_flat_in_each_cell_is_a_probability():
    """Every draw gives log P(x) itself: P(k) = h_k/L for a density with the heights h."""
    heights = torch.tensor([0.5, 1.5, 0.2, 1.8, 1.0], dtype=F64)
    x = torch.tensor([[0, 1], [2, 4], [3, 3]], dtype=F64) / 4
    found = quantised_log_prob(lambda y: heights[(y * 5).long()].log().sum(1), x, seeded(1), 7, levels=5)
    wanted = (heights / 5)[(x * 4).long()].log().sum(1)
    torch.testing.assert_close(found, wanted.expand(7, 3), rtol=1e-14, atol=1e-14)
    total = torch.cartesian_prod(torch.arange(5), torch.arange(5)).to(F64) / 4
    each = quantised_log_prob(lambda y: heights[(y * 5).long()].log().sum(1), total, seeded(2), 1, levels=5)
    assert each.exp().sum().item() == pytest.approx(1, abs=1e-13)


def test_the_bound_and_the_tighter_one():
    """A beta density: the mean against quadrature of log p over a cell, many draws against the cell's probability."""
    draws = 40_000
    constant = math.lgamma(7.0) - math.lgamma(2.0) - math.lgamma(5.0)
    x = torch.tensor([[0.0], [0.25], [0.75], [1.0]], dtype=F64)
    found = quantised_log_prob(
        lambda y: (constant + y.log() + 4 * torch.log1p(-y))[:, 0], x, seeded(1), draws, levels=5
    )
    bound, error = found.mean(0), found.std(0) / draws**0.5
    tighter = found.logsumexp(0) - math.log(draws)
    for k, row in zip((0, 1, 3, 4), range(4), strict=True):
        mean = (
            quad(lambda y: xlogy(1, y) + xlog1py(4, -y), k / 5, (k + 1) / 5, epsabs=1e-12)[0] * 5
            + constant
            - math.log(5)
        )
        probability = math.log(betainc(2, 5, (k + 1) / 5) - betainc(2, 5, k / 5))
        assert mean < probability
        assert abs(bound[row].item() - mean) < 4 * error[row].item()
        assert tighter[row].item() == pytest.approx(probability, abs=0.05)


def test_a_flow_over_grey_levels():
    """A mixture's density over y through `log_likelihood`: the levels' probabilities sum to one but for its tails."""
    bells = GaussianMixtureDenoiser(
        torch.tensor([0.4, 0.6], dtype=F64), torch.tensor([[0.3], [0.7]], dtype=F64), 0.004, Straight()
    )
    x = (torch.arange(17, dtype=F64) / 16)[:, None]
    each = quantised_log_prob(lambda y: log_likelihood(bells, y, 1e-5).log_prob, x, seeded(1), 30)
    probabilities = each.exp().mean(0)
    assert probabilities.sum().item() == pytest.approx(1, abs=0.02)
    assert (each.mean(0) <= probabilities.log()).all()


def test_what_is_no_level_is_refused():
    x = torch.tensor([[0.0, 0.3]])
    with pytest.raises(ValueError, match=r"x\[0, 1\] is 0.3, none of the 17 levels"):
        dequantise(x, seeded(1))
    with pytest.raises(ValueError, match=r"x\[0, 1\] is 1.5"):
        dequantise(torch.tensor([[0.0, 1.5]]), seeded(1), 3)
    for call in (lambda: dequantise(x, seeded(1), 1), lambda: quantise(x, 1)):
        with pytest.raises(ValueError, match="levels is 1"):
            call()
    with pytest.raises(ValueError, match="draws is 0"):
        quantised_log_prob(lambda y: y.sum(1), x, seeded(1), 0)
    with pytest.raises(ValueError, match=r"log_density gives shape \(3, 1\) for 3 rows"):
        quantised_log_prob(lambda y: y, torch.zeros(3, 1), seeded(1))
