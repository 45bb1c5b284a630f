"""Gaussian visible units: densities against quadrature, log Z against sums in mpmath, draws and refusals."""

import itertools
import math
import re

import mpmath
import pytest
import torch
from scipy import integrate

from lecturecode import seeded
from lecturecode.boltzmann import BIT, SPIN, GaussianRestrictedBoltzmannMachine, states

F64 = torch.float64
ALPHABETS = pytest.mark.parametrize("alphabet", [BIT, SPIN], ids=["bits", "spins"])


def machine(n, m, alphabet=BIT, scale=0.8, sigma=0.7, seed=1, dtype=F64, learned=False):
    rbm = GaussianRestrictedBoltzmannMachine(n, m, sigma=sigma, learned=learned, alphabet=alphabet, dtype=F64)
    rng = seeded(seed)
    with torch.no_grad():
        for p in (rbm.weights, rbm.visible_bias, rbm.hidden_bias):
            p.copy_(scale * torch.randn(p.shape, generator=rng, dtype=F64))
    return rbm.to(dtype=dtype)


def energy(rbm, x, h):
    """E(x,h) term by term, in Python floats."""
    a, b, W, sigma = (p.tolist() for p in (rbm.visible_bias, rbm.hidden_bias, rbm.weights, rbm.sigma))
    E = sum((x[i] - a[i]) ** 2 / (2 * sigma[i] ** 2) for i in range(rbm.n)) - sum(b[j] * h[j] for j in range(rbm.m))
    return E - sum(x[i] / sigma[i] ** 2 * W[i][j] * h[j] for i in range(rbm.n) for j in range(rbm.m))


def unnormalised(rbm, x):
    return math.fsum(math.exp(-energy(rbm, x, h)) for h in itertools.product(rbm.alphabet, repeat=rbm.m))


SIGMAS = torch.tensor([0.7, 1.3], dtype=F64)


@ALPHABETS
def test_log_partition_by_quadrature(alphabet):
    """∫dx Σ_h e^{−E}, one and two visible units with their own σ; 1e-10 is for the adaptive integrator."""
    rbm = machine(1, 3, alphabet)
    Z, _ = integrate.quad(lambda x: unnormalised(rbm, [x]), -15, 15, epsabs=0, epsrel=1e-12, limit=200)
    assert rbm.log_partition().item() == pytest.approx(math.log(Z), abs=1e-10)
    # two units: the sum over a grid, which for Gaussians is exact to e^{−2π²σ²/step²}, here e^{−150}
    rbm, step = machine(2, 2, alphabet, sigma=SIGMAS), 0.25
    line = [step * k for k in range(-60, 61)]
    Z = step**2 * math.fsum(unnormalised(rbm, [x, y]) for x in line for y in line)
    assert rbm.log_partition().item() == pytest.approx(math.log(Z), abs=1e-12)


@ALPHABETS
@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_log_partition_against_mpmath(alphabet, scale):
    """Each Gaussian integral in closed form, unit by unit and h by h, in 60 digits."""
    rbm = machine(4, 5, alphabet, scale, sigma=torch.tensor([0.3, 0.7, 1.0, 2.0], dtype=F64))
    with mpmath.workdps(60):
        a, b, W, log_sigma = (
            mpmath.matrix(p.tolist()) for p in (rbm.visible_bias, rbm.hidden_bias, rbm.weights, rbm.log_sigma)
        )
        Z = mpmath.mpf(0)
        for h in itertools.product(alphabet, repeat=5):
            exponent = mpmath.fsum(b[j] * h[j] for j in range(5))
            for i in range(4):
                variance = mpmath.exp(2 * log_sigma[i])
                push = mpmath.fsum(W[i, j] * h[j] for j in range(5))
                # ∫ exp(−(x−a)²/2v + x p/v) dx = √(2πv) exp((a p + p²/2)/v)
                exponent += (a[i] * push + push**2 / 2) / variance + mpmath.log(2 * mpmath.pi * variance) / 2
            Z += mpmath.exp(exponent)
        wanted = float(mpmath.log(Z))
    assert rbm.log_partition().item() == pytest.approx(wanted, rel=1e-12)


@ALPHABETS
def test_densities_and_conditionals_by_quadrature(alphabet):
    """log p(x), P(h|x) by sums over h, and the moments of p(x|h) by integrals over x."""
    rbm = machine(1, 2, alphabet)
    Z, _ = integrate.quad(lambda x: unnormalised(rbm, [x]), -15, 15, epsabs=0, epsrel=1e-12, limit=200)
    for x in (-1.3, 0.0, 2.0):
        row = torch.tensor([[x]], dtype=F64)
        assert rbm.log_prob(row).item() == pytest.approx(math.log(unnormalised(rbm, [x]) / Z), abs=1e-10)
        assert rbm.free_energy(row).item() == pytest.approx(-math.log(unnormalised(rbm, [x])), abs=1e-12)
        for j in range(2):
            on = [h for h in itertools.product(alphabet, repeat=2) if h[j] == alphabet[1]]
            part = math.fsum(math.exp(-energy(rbm, [x], h)) for h in on)
            assert rbm.hidden(row)[0, j].item() == pytest.approx(part / unnormalised(rbm, [x]), rel=1e-12)
    for h in itertools.product(alphabet, repeat=2):
        moments = [
            integrate.quad(lambda x, k=k, h=h: x**k * math.exp(-energy(rbm, [x], h)), -15, 15, epsrel=1e-12)[0]
            for k in range(3)
        ]
        mean = moments[1] / moments[0]
        given = rbm.visible(torch.tensor([h], dtype=F64))
        assert given.mean.item() == pytest.approx(mean, rel=1e-9)
        assert given.variance.item() == pytest.approx(moments[2] / moments[0] - mean**2, rel=1e-9)


def test_other_energies_have_other_means():
    """With (x/σ)ᵀWh the mean is a + σ∘Wh, with xᵀWh it is a + σ²∘Wh: neither is the a + Wh of this energy."""
    rbm = machine(1, 1, sigma=0.5)
    a, w, sigma = rbm.visible_bias.item(), rbm.weights.item(), 0.5
    assert rbm.visible(torch.ones(1, 1, dtype=F64)).mean.item() == pytest.approx(a + w, rel=1e-12)
    for power, expected in ((2, a + w), (1, a + sigma * w), (0, a + sigma**2 * w)):

        def f(x, k, power=power):
            return x**k * math.exp(-((x - a) ** 2) / (2 * sigma**2) + x / sigma**power * w)

        Z, first = (integrate.quad(f, -10, 10, args=(k,), epsabs=1e-14, epsrel=1e-12)[0] for k in (0, 1))
        assert first / Z == pytest.approx(expected, rel=1e-9)
    assert abs(w) > 0.1


@ALPHABETS
def test_energy_term_by_term(alphabet):
    rbm = machine(2, 3, alphabet, sigma=SIGMAS)
    x = torch.randn(8, 2, generator=seeded(3), dtype=F64)
    h = states(3, alphabet)
    wanted = [energy(rbm, a, b) for a, b in zip(x.tolist(), h.tolist(), strict=True)]
    torch.testing.assert_close(rbm.energy(x, h), torch.tensor(wanted, dtype=F64), rtol=1e-12, atol=1e-12)


@ALPHABETS
def test_the_hidden_machine_is_the_marginal(alphabet):
    """P(h) ∝ ∫dx e^{−E(x,h)} by quadrature for each h, and its Z is the whole Z."""
    rbm = machine(1, 3, alphabet)
    h = states(3, alphabet)
    weights = [
        integrate.quad(lambda x, row=row: math.exp(-energy(rbm, [x], row)), -15, 15, epsabs=0, epsrel=1e-12)[0]
        for row in h.tolist()
    ]
    hidden = rbm.hidden_machine()
    wanted = torch.tensor(weights, dtype=F64)
    torch.testing.assert_close(hidden.log_prob(h).exp(), wanted / wanted.sum(), rtol=1e-9, atol=0)
    torch.testing.assert_close(hidden.log_partition(), rbm.log_partition(), rtol=1e-13, atol=0)


@ALPHABETS
def test_gradcheck(alphabet):
    rbm = machine(3, 2, alphabet, learned=True)
    names, values = zip(*rbm.named_parameters(), strict=True)
    assert set(names) == {"weights", "visible_bias", "hidden_bias", "log_sigma"}
    x = torch.randn(4, 3, generator=seeded(3), dtype=F64)

    def log_prob(*values):
        state = {f"rbm.{k}": v for k, v in zip(names, values, strict=True)}
        return torch.func.functional_call(_LogProb(rbm), state, (x,))

    assert torch.autograd.gradcheck(log_prob, tuple(v.detach().clone().requires_grad_() for v in values))


class _LogProb(torch.nn.Module):
    def __init__(self, rbm):
        super().__init__()
        self.rbm = rbm

    def forward(self, x):
        return self.rbm.log_prob(x)


def test_the_gradient_of_log_partition_is_a_moment():
    """∂log Z/∂b_h = ⟨h⟩ and ∂log Z/∂W_ij = ⟨x_i h_j⟩/σ_i², by Gaussian integrals over the mixture."""
    rbm = machine(2, 3, sigma=SIGMAS)
    h = states(3, BIT)
    p = rbm.hidden_machine().log_prob(h).exp().detach()
    mean_given_h = rbm.visible_bias + h @ rbm.weights.mT
    slope_w, slope_b = torch.autograd.grad(rbm.log_partition(), (rbm.weights, rbm.hidden_bias))
    torch.testing.assert_close(slope_b, p @ h, rtol=1e-12, atol=1e-14)
    wanted = mean_given_h.mT @ (p[:, None] * h) / rbm.sigma[:, None] ** 2
    torch.testing.assert_close(slope_w, wanted.detach(), rtol=1e-12, atol=1e-14)


@ALPHABETS
def test_the_gibbs_step_keeps_the_density(alphabet):
    """∫dx p(x) Σ_h P(h|x) p(y|h) = p(y), by quadrature over x at three y."""
    rbm = machine(1, 2, alphabet)
    h = states(2, alphabet)

    def step(x, y):
        row = torch.tensor([[x]], dtype=F64)
        on = rbm.hidden(row)
        given_x = torch.where(h == alphabet[1], on, 1 - on).prod(-1)
        given_h = rbm.visible(h).log_prob(torch.full((4, 1), y, dtype=F64)).exp()
        return (rbm.log_prob(row).exp() * (given_x * given_h).sum()).item()

    with torch.no_grad():
        for y in (-0.8, 0.4, 1.9):
            after, _ = integrate.quad(step, -6, 6, args=(y,), epsabs=1e-9, epsrel=1e-9)
            assert after == pytest.approx(rbm.log_prob(torch.tensor([[y]], dtype=F64)).exp().item(), abs=1e-8)


@ALPHABETS
@pytest.mark.parametrize("way", ["sample", "gibbs"])
def test_draws_have_the_exact_moments(way, alphabet):
    """40,000 independent draws (gibbs: one step from such draws); ⟨x⟩ and ⟨x xᵀ⟩ within 5σ of the mixture's."""
    rbm, count = machine(2, 3, alphabet, sigma=SIGMAS), 40_000
    h = states(3, alphabet)
    p = rbm.hidden_machine().log_prob(h).exp()
    means = rbm.visible_bias + h @ rbm.weights.mT
    mean = p @ means
    second = means.mT @ (p[:, None] * means) + torch.diag(rbm.sigma**2)
    x = rbm.sample(count, seeded(5))
    if way == "gibbs":
        x = rbm.gibbs(x, seeded(6))
    products = x[:, :, None] * x[:, None]
    assert ((x.mean(0) - mean).abs() <= 5 * x.std(0) / math.sqrt(count)).all()
    assert ((products.mean(0) - second).abs() <= 5 * products.std(0) / math.sqrt(count)).all()


def test_draws_repeat_with_their_seed_and_ignore_the_global_one():
    rbm, before = machine(3, 2), torch.get_rng_state()
    x = torch.zeros(5, 3, dtype=F64)
    for draw in (lambda k: rbm.sample(7, seeded(k)), lambda k: rbm.gibbs(x, seeded(k))):
        assert torch.equal(draw(1), draw(1))
        assert not torch.equal(draw(1), draw(2))
    assert torch.equal(torch.get_rng_state(), before)


@ALPHABETS
def test_it_follows_dtype_and_device(alphabet, dtype, device):
    rbm = machine(3, 2, alphabet, dtype=dtype).to(device)
    there = machine(3, 2, alphabet)
    x = torch.randn(5, 3, generator=seeded(2), dtype=F64)
    here = x.to(device=device, dtype=dtype)
    h = states(2, alphabet, dtype, device)
    values = [
        rbm.log_partition(),
        rbm.log_prob(here),
        rbm.hidden(here),
        rbm.visible(h).mean,
        rbm.gibbs(here, seeded(1)),
    ]
    for value in (*values, rbm.sample(4, seeded(1)), rbm.energy(here[:4], h)):
        assert (value.dtype, value.device.type) == (dtype, device.type)
    torch.testing.assert_close(values[1].cpu().double(), there.log_prob(x), rtol=1e-5, atol=1e-5)


def test_sigma_is_kept_and_learned_where_asked():
    fixed, learned = machine(2, 2), machine(2, 2, learned=True)
    assert "log_sigma" in fixed.state_dict()
    assert len(list(fixed.parameters())) == 3
    assert len(list(learned.parameters())) == 4
    torch.testing.assert_close(machine(2, 2, sigma=SIGMAS).sigma, SIGMAS, rtol=1e-15, atol=0)


def _spoiled():
    rbm = machine(3, 2)
    with torch.no_grad():
        rbm.hidden_bias[1] = math.inf
    return rbm


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: GaussianRestrictedBoltzmannMachine(0, 3), "a machine with 0 visible and 3 hidden units"),
        (lambda: GaussianRestrictedBoltzmannMachine(3, 3, alphabet=(0, 2)), "the alphabet is (0, 2)"),
        (lambda: GaussianRestrictedBoltzmannMachine(3, 3, sigma=0.0), "sigma has the value 0; it must be above zero"),
        (lambda: GaussianRestrictedBoltzmannMachine(3, 3, sigma=SIGMAS), "one for each of 3 units"),
        (lambda: GaussianRestrictedBoltzmannMachine(3, 60).log_partition(), "60"),
        (lambda: GaussianRestrictedBoltzmannMachine(3, 60).sample(2, seeded(1)), "60"),
        (lambda: machine(3, 2).free_energy(torch.zeros(0, 3, dtype=F64)), "x has shape (0, 3)"),
        (
            lambda: machine(3, 2).free_energy(torch.zeros(4, 2, dtype=F64)),
            "x has shape (4, 2); give at least one row of 3",
        ),
        (lambda: machine(3, 2).hidden(torch.full((1, 3), math.nan, dtype=F64)), "x[0, 0] is nan"),
        (lambda: machine(3, 2).free_energy(torch.zeros(4, 3)), "x is torch.float32 and the model torch.float64"),
        (lambda: machine(3, 2).free_energy(torch.zeros(4, 3, device="meta", dtype=F64)), "x is on meta and model on"),
        (lambda: machine(3, 2).visible(torch.full((1, 2), 0.5, dtype=F64)), "h[0, 0] is 0.5"),
        (lambda: machine(3, 2).energy(*2 * [torch.zeros(1, 3, dtype=F64)]), "h has 3 units"),
        (lambda: machine(3, 2).sample(0, seeded(1)), "count is 0"),
        (lambda: _spoiled().log_partition(), "hidden_bias[1] is inf"),
    ],
)
def test_it_refuses_at_the_door(act, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        act()
