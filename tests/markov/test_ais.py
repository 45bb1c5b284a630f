"""Annealed importance sampling: its mean and its variance by matrix products, then draws held against both.

With D_k = diag(f_{β_k}/f_{β_{k−1}}) and T_k the kernel's matrix, E[w] = 1ᵀ D_K T_{K−1} D_{K−1} … T_1 D_1 p_0 and
E[w²] is the same product with the squares of D_k: sums over all paths, without sampling error.
"""

import math

import pytest
import torch
from small_chains import (
    BIT,
    SPIN,
    all_states,
    conditional_of,
    gibbs_matrix,
    metropolis_matrix,
    one_after_another,
    random_energy,
    sweep_of,
)

from lecturecode import seeded
from lecturecode.markov import Annealed, Kernel, ais, flip, geometric, gibbs, metropolis
from lecturecode.rng import uniform

f64 = torch.float64
N, CHAINS = 4, 10_000
GRIDS = {"two": [0, 1], "five": [0, 0.1, 0.3, 0.6, 1.0], "seventeen": torch.linspace(0, 1, 17, dtype=f64)}


def first_energy(s):
    """Independent units with unequal biases: f_0 is easy to draw from."""
    return -s @ torch.linspace(-0.5, 0.7, N, dtype=s.dtype)


def last_energy(s):
    return 1.5 * random_energy(N, 2)(s)


def own_path(alphabet):
    """A restricted machine at inverse temperature β, its hidden units summed: not of the geometric form."""
    W = torch.randn(N, 3, generator=seeded(3), dtype=f64)
    lower, upper = alphabet

    def energy(s, beta):
        field = beta * (s @ W + 0.3)
        return -beta * s.sum(-1) * 0.2 - torch.logaddexp(lower * field, upper * field).sum(-1)

    return energy


PATHS = {"geometric": lambda alphabet: geometric(first_energy, last_energy), "own": own_path}


def tables(energy, betas, alphabet):
    """f_β on all states for each β of the grid."""
    states = all_states(alphabet, N)
    return [(-energy(states, float(beta))).exp() for beta in betas]


def matrix(rule, f):
    steps = [(gibbs_matrix if rule == "gibbs" else metropolis_matrix)(f / f.sum(), i, N) for i in range(N)]
    return sweep_of(steps)


def kernel_at(rule, energy, alphabet):
    def kernel(beta) -> Kernel:
        def at_beta(s):
            return energy(s, beta)

        if rule == "gibbs":
            return gibbs(conditional_of(at_beta, alphabet), alphabet)
        return one_after_another([metropolis(at_beta, flip(alphabet, i)) for i in range(N)])

    return kernel


def moment(rule, energy, betas, alphabet, power):
    """E[w^power] over all paths, by products of matrices."""
    f = tables(energy, betas, alphabet)
    p = f[0] / f[0].sum()
    for k in range(1, len(f)):
        p = (f[k] / f[k - 1]) ** power * p
        if k < len(f) - 1:
            p = matrix(rule, f[k]) @ p
    return p.sum()


def starts(energy, alphabet, chains, rng):
    """Independent exact draws of f_0, by its cumulative sums."""
    states = all_states(alphabet, N)
    weights = (-energy(states, 0.0)).exp()
    level = uniform((chains, 1), rng, weights) * weights.sum()
    return states[(level >= weights.cumsum(0)).sum(-1).clamp(max=len(states) - 1)]


@pytest.mark.parametrize("alphabet", [SPIN, BIT])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("rule", ["gibbs", "metropolis"])
@pytest.mark.parametrize("path", PATHS)
def test_the_mean_weight_is_the_ratio(path, rule, grid, alphabet):
    """Exact, for every grid and every kernel that keeps f_β; with kernels for another β it is not."""
    energy = PATHS[path](alphabet)
    f = tables(energy, [0.0, 1.0], alphabet)
    assert moment(rule, energy, GRIDS[grid], alphabet, 1) == pytest.approx(float(f[1].sum() / f[0].sum()), rel=1e-13)


def test_a_kernel_of_the_next_beta_is_biased():
    """What the exact check can notice: T_k for β_{k+1} in place of β_k."""
    energy, betas = PATHS["geometric"](SPIN), GRIDS["five"]
    f = tables(energy, betas, SPIN)
    p = f[0] / f[0].sum()
    for k in range(1, len(f)):
        p = f[k] / f[k - 1] * p
        if k < len(f) - 1:
            p = matrix("gibbs", f[k + 1]) @ p
    assert abs(float(p.sum() * f[0].sum() / f[-1].sum()) - 1) > 0.01


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("rule", ["gibbs", "metropolis"])
@pytest.mark.parametrize("path", PATHS)
def test_draws_have_the_exact_mean_and_variance(path, rule, grid):
    """10,000 chains: the mean weight within 5 exact standard errors; the mean square within 5 of its own."""
    energy = PATHS[path](SPIN)
    rng = seeded(11)
    result = ais(energy, kernel_at(rule, energy, SPIN), starts(energy, SPIN, CHAINS, rng), GRIDS[grid], rng)
    m = [float(moment(rule, energy, GRIDS[grid], SPIN, power)) for power in range(5)]
    w = result.log_weights.exp()
    assert w.shape == (CHAINS,)
    assert abs(w.mean() - m[1]) < 5 * math.sqrt((m[2] - m[1] ** 2) / CHAINS)
    assert abs(w.square().mean() - m[2]) < 5 * math.sqrt((m[4] - m[2] ** 2) / CHAINS)


@pytest.mark.parametrize("rule", ["gibbs", "metropolis"])
def test_weighted_ends_are_draws_of_the_target(rule):
    """Σ w g(x)/Σ w is the target's mean of g, within 5 standard errors (delta method); unweighted it is not."""
    energy = PATHS["geometric"](SPIN)
    rng = seeded(12)
    result = ais(energy, kernel_at(rule, energy, SPIN), starts(energy, SPIN, CHAINS, rng), GRIDS["five"], rng)
    f = tables(energy, [1.0], SPIN)[0]
    exact = (f / f.sum()) @ all_states(SPIN, N)
    weight = (result.log_weights - result.log_weights.logsumexp(0)).exp()
    error = (weight.square() @ (result.x - exact).square()).sqrt()
    assert ((weight @ result.x - exact).abs() < 5 * error).all()
    assert ((result.x.mean(0) - exact).abs() > 5 / math.sqrt(CHAINS)).any()


def test_the_error_bar_covers():
    """200 repeats of 50 chains: the exact log ratio within one error bar in 60 to 76 % (5σ of a share is 17 %)."""
    energy = PATHS["geometric"](SPIN)
    rng = seeded(13)
    f = tables(energy, [0.0, 1.0], SPIN)
    exact = math.log(float(f[1].sum() / f[0].sum()))
    betas = GRIDS["seventeen"]
    all_chains = ais(energy, kernel_at("gibbs", energy, SPIN), starts(energy, SPIN, CHAINS, rng), betas, rng)
    inside = 0
    for part, ends in zip(all_chains.log_weights.split(50), all_chains.x.split(50), strict=True):
        one = Annealed(part, ends)
        inside += bool((one.log_ratio - exact).abs() < one.standard_error)
    assert abs(inside / 200 - 0.683) < 5 * math.sqrt(0.683 * 0.317 / 200)


def test_the_summary_is_what_it_says():
    """Against plain sums; and no overflow where the weights themselves have none to hold them."""
    logs = torch.tensor([0.3, -0.4, 1.1, 0.0], dtype=f64)
    w = logs.exp()
    result = Annealed(logs, torch.zeros(4, 1))
    assert result.log_ratio.item() == pytest.approx(math.log(w.mean().item()), rel=1e-14)
    assert result.standard_error.item() == pytest.approx((w.std() / w.mean() / 2).item(), rel=1e-13)
    assert result.effective_sample_size.item() == pytest.approx((w.sum() ** 2 / (w**2).sum()).item(), rel=1e-13)
    far = Annealed(logs + 5000, torch.zeros(4, 1))
    assert far.log_ratio.item() == pytest.approx(5000 + result.log_ratio.item(), rel=1e-14)
    assert far.standard_error.item() == pytest.approx(result.standard_error.item(), rel=1e-9)
    assert far.effective_sample_size.item() == pytest.approx(result.effective_sample_size.item(), rel=1e-9)
    equal = Annealed(torch.full((7,), -3.0, dtype=f64), torch.zeros(7, 1))
    assert equal.standard_error.item() == pytest.approx(0, abs=1e-14)
    assert equal.effective_sample_size.item() == pytest.approx(7)
    assert Annealed(logs[:1], torch.zeros(1, 1)).standard_error.isnan()


def test_the_kernel_is_asked_between_the_ends_only():
    asked = []

    def kernel(beta):
        asked.append(beta)
        return lambda x, rng: x

    x = torch.zeros(3, N, dtype=f64)
    energy = geometric(first_energy, last_energy)
    ais(energy, kernel, x, [0, 0.25, 0.5, 1], seeded(1))
    assert asked == [0.25, 0.5]


def test_progress_wraps_the_steps_and_changes_nothing():
    seen = []

    def bar(steps):
        for step in steps:
            seen.append(step)
            yield step

    energy = PATHS["own"](BIT)
    x = starts(energy, BIT, 10, seeded(1))
    kernel = kernel_at("gibbs", energy, BIT)
    plain = ais(energy, kernel, x, GRIDS["five"], seeded(2))
    watched = ais(energy, kernel, x, GRIDS["five"], seeded(2), progress=bar)
    assert seen == [1, 2, 3, 4]
    assert torch.equal(plain.log_weights, watched.log_weights)
    assert torch.equal(plain.x, watched.x)


def test_devices_and_precisions(device, dtype):
    """The same chains to the precision's accuracy; dtype and device follow x."""
    states = all_states(BIT, N)
    x = states[[1, 5, 9]].to(dtype).to(device)
    energy = geometric(lambda s: -0.3 * s.sum(-1), lambda s: -0.7 * s.sum(-1) * s[..., 0])
    kernel = lambda beta: metropolis(lambda s: energy(s, beta), flip(BIT))  # noqa: E731
    result = ais(energy, kernel, x, [0, 0.5, 1], seeded(3))
    assert result.log_weights.dtype == result.x.dtype == dtype
    assert result.log_weights.device.type == result.x.device.type == device.type
    assert torch.isfinite(result.log_ratio)


def broken(at):
    """An energy that is NaN for one chain at one temperature."""

    def energy(s, beta):
        value = beta * s.sum(-1)
        return torch.where(torch.arange(len(s)) == 1, math.nan, value) if beta == at else value

    return energy


STILL = lambda beta: lambda x, rng: x  # noqa: E731
LINE = lambda s, beta: beta * s.sum(-1)  # noqa: E731
X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ais(LINE, STILL, X, [], seeded(1)), "betas has 0 values"),
        (lambda: ais(LINE, STILL, X, [0], seeded(1)), "betas has 1 values"),
        (lambda: ais(LINE, STILL, X, [0.1, 1], seeded(1)), "betas run from 0.1 to 1; they must start at 0"),
        (lambda: ais(LINE, STILL, X, [0, 0.9], seeded(1)), "betas run from 0 to 0.9"),
        (lambda: ais(LINE, STILL, X, [1, 0], seeded(1)), "betas run from 1 to 0"),
        (lambda: ais(LINE, STILL, X, [0, 0.5, 0.5, 1], seeded(1)), r"betas\[2\] is 0.5 after 0.5; they must rise"),
        (lambda: ais(LINE, STILL, X, [0, math.nan, 1], seeded(1)), r"betas\[1\] is nan after 0"),
        (lambda: ais(LINE, STILL, X[:0], [0, 1], seeded(1)), r"x has shape \(0, 2\); pass at least one draw"),
        (lambda: ais(lambda s, beta: s, STILL, X, [0, 1], seeded(1)), r"energy\(x, 0\) has shape \(3, 2\), not \(3,\)"),
        (
            lambda: ais(broken(0.5), STILL, X, [0, 0.25, 0.5, 1], seeded(1)),
            "not finite at step 2 of 3, from beta = 0.25 to 0.5",
        ),
        (lambda: ais(broken(1.0), STILL, X, [0, 1], seeded(1)), "not finite at step 1 of 1"),
        (
            lambda: ais(LINE, lambda beta: lambda x, rng: x[:1], X, [0, 0.5, 1], seeded(1)),
            r"the kernel turned the shape \(3, 2\) into \(1, 2\)",
        ),
    ],
)
def test_errors_at_the_door(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_nothing_is_drawn_after_a_bad_step():
    """On the CPU the walk stops at the step that is named."""
    asked = []

    def kernel(beta):
        asked.append(beta)
        return lambda x, rng: x

    with pytest.raises(ValueError, match="step 1 of 4"):
        ais(broken(0.25), kernel, X, [0, 0.25, 0.5, 0.75, 1], seeded(1))
    assert asked == []


def test_no_gradient_is_kept():
    """Weights of a machine with parameters carry no graph: thousands of steps would fill the memory."""
    bias = torch.zeros(2, requires_grad=True)
    result = ais(lambda s, beta: beta * (s @ bias), STILL, X, [0, 0.5, 1], seeded(1))
    assert not result.log_weights.requires_grad
