"""One suite over all members of each family: likelihoods, machines, data sets, divergences."""

# pyright: reportAttributeAccessIssue=false

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from lecturecode import boltzmann, js, kl, seeded, tv
from lecturecode.boltzmann import (
    BIT,
    SPIN,
    BoltzmannMachine,
    FreeEnergy,
    GaussianRestrictedBoltzmannMachine,
    RestrictedBoltzmannMachine,
    contrastive_loss,
    states,
)
from lecturecode.data import bars_and_stripes, digits
from lecturecode.rng import draw
from lecturecode.training import Batches
from lecturecode.vae import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretisedGaussian,
    DiscretisedLogistic,
    Gaussian,
    PixelGaussian,
    grey,
    likelihoods,
)
from lecturecode.vae.likelihoods import Likelihood

F64 = torch.float64

BITS = torch.tensor([0.0, 1.0], dtype=F64)
LINE = torch.linspace(-60, 60, 24001, dtype=F64)

# A likelihood, the points of its support with their weights, and an x outside it.
LIKELIHOODS = {
    "Bernoulli": (Bernoulli(), BITS, torch.ones(2, dtype=F64), 0.5),
    "Gaussian": (Gaussian(0.7, dtype=F64), LINE, torch.full_like(LINE, 0.005), math.nan),
    "Gaussian, learned": (Gaussian(1.9, learned=True, dtype=F64), LINE, torch.full_like(LINE, 0.005), math.inf),
}
LEVELS, EACH = torch.arange(17, dtype=F64) / 16, torch.ones(17, dtype=F64)
NODES, NODE_WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(60))
UNIT = ((NODES + 1) / 2, NODE_WEIGHTS / 2)  # Gauss–Legendre on [0, 1]
LIKELIHOODS |= {
    "continuous Bernoulli": (ContinuousBernoulli(), *UNIT, 1.01),
    "discretised Gaussian": (DiscretisedGaussian(0.1, dtype=F64), LEVELS, EACH, 0.3),
    "discretised Gaussian, learned": (DiscretisedGaussian(0.4, learned=True, dtype=F64), LEVELS, EACH, 0.3),
    "discretised logistic": (DiscretisedLogistic(0.1, dtype=F64), LEVELS, EACH, 1.0625),
    "discretised logistic, learned": (DiscretisedLogistic(0.4, learned=True, dtype=F64), LEVELS, EACH, -0.0625),
}
# PixelGaussian takes two numbers for each x_i: with the second held it is a family of the same form.


class HeldVariance(nn.Module):
    """y ↦ PixelGaussian()((y, 0.3)): one number in, as the suite gives it."""

    def __init__(self):
        super().__init__()
        self.inner = PixelGaussian()

    def forward(self, output):
        both = torch.stack([output, torch.full_like(output, 0.3)], -1)
        normal = self.inner(both)
        return torch.distributions.Normal(normal.loc[..., 0], normal.scale[..., 0], validate_args=False)

    def check(self, x):
        self.inner.check(x)


LIKELIHOODS["Gaussian with a σ for each pixel"] = (HeldVariance(), LINE, torch.full_like(LINE, 0.005), math.nan)
OUTPUTS = torch.tensor([-3.0, -0.2, 0.0, 1.0, 5.0], dtype=F64)


def test_every_likelihood_is_here():
    here = vars(likelihoods) | vars(grey)
    classes = {c for c in here.values() if isinstance(c, type) and issubclass(c, nn.Module)}
    held = {
        type(likelihood.inner if isinstance(likelihood, HeldVariance) else likelihood)
        for likelihood, *_ in LIKELIHOODS.values()
    }
    assert classes - {nn.Module} == held


@pytest.mark.parametrize("name", LIKELIHOODS)
class TestLikelihood:
    def test_is_one(self, name):
        assert isinstance(LIKELIHOODS[name][0], Likelihood)

    def test_sums_to_one(self, name):
        """A sum over the support; for densities the trapezoid rule on a grid that is fine beside σ."""
        likelihood, points, weights, _ = LIKELIHOODS[name]
        total = (likelihood(OUTPUTS[:, None]).log_prob(points).exp() * weights).sum(-1)
        torch.testing.assert_close(total, torch.ones_like(OUTPUTS), rtol=1e-12, atol=1e-12)

    def test_has_the_mean_that_it_states(self, name):
        likelihood, points, weights, _ = LIKELIHOODS[name]
        mean = (likelihood(OUTPUTS[:, None]).log_prob(points).exp() * weights * points).sum(-1)
        torch.testing.assert_close(mean, likelihood(OUTPUTS).mean, rtol=1e-11, atol=1e-12)

    def test_has_the_right_gradient(self, name):
        likelihood, points, *_ = LIKELIHOODS[name]
        x = points[[0, -1]] / points.abs().max()
        y = OUTPUTS.clone().requires_grad_()
        parameters = tuple(likelihood.parameters())

        def log_prob(y, *_):
            return likelihood(y).log_prob(x[:, None])

        assert torch.autograd.gradcheck(log_prob, (y, *parameters))

    def test_the_score_has_mean_zero(self, name):
        """E[∂ log p/∂y] = 0, since p sums to one for every y."""
        likelihood, points, weights, _ = LIKELIHOODS[name]
        y = OUTPUTS.clone().requires_grad_()
        log = likelihood(y[:, None]).log_prob(points)
        (score,) = torch.autograd.grad((log.exp().detach() * weights * log).sum(), y)
        torch.testing.assert_close(score, torch.zeros_like(y), rtol=0, atol=1e-12)

    def test_takes_its_own_draws_and_refuses_what_is_outside(self, name):
        likelihood, *_, outside = LIKELIHOODS[name]
        x = draw(likelihood(OUTPUTS), 100, seeded(1))
        likelihood.check(x)
        x = x.detach().clone()
        x[17, 2] = outside
        with pytest.raises(ValueError, match=r"x\[17, 2\] is"):
            likelihood.check(x)

    def test_follows_the_dtype_of_the_network(self, name, dtype):
        family = type(LIKELIHOODS[name][0])
        likelihood = family(*([0.7] if "sigma" in inspect.signature(family).parameters else []))
        assert likelihood.to(dtype)(OUTPUTS.to(dtype)).log_prob(torch.ones(5, dtype=dtype)).dtype == dtype


def _filled(machine):
    with torch.no_grad():
        for k, p in enumerate(machine.parameters()):
            p.copy_(0.7 * torch.randn(p.shape, generator=seeded(k), dtype=F64))
    return machine


def _pairs(n):
    draws = torch.randn(n, n, generator=seeded(9), dtype=F64)
    return (draws + draws.mT).fill_diagonal_(0) / 2


# A machine, the points of its visible layer with their weights, and an x that it cannot be asked about.
FINE = LINE[::20, None]
MACHINES = {
    f"{kind}, {name}": (machine, states(4, alphabet), torch.ones(16, dtype=F64), 0.5)
    for name, alphabet in (("bits", BIT), ("spins", SPIN))
    for kind, machine in (
        ("full", BoltzmannMachine(_pairs(4), _pairs(4)[0], alphabet)),
        ("restricted, more visible", _filled(RestrictedBoltzmannMachine(4, 3, alphabet=alphabet, dtype=F64))),
        ("restricted, more hidden", _filled(RestrictedBoltzmannMachine(4, 6, alphabet=alphabet, dtype=F64))),
    )
}
MACHINES |= {
    f"Gaussian, {name}": (
        _filled(GaussianRestrictedBoltzmannMachine(1, 3, alphabet=alphabet, dtype=F64)),
        FINE,
        torch.full((len(FINE),), 0.1, dtype=F64),
        math.nan,
    )
    for name, alphabet in (("bits", BIT), ("spins", SPIN))
}


def test_every_machine_is_here():
    classes = {c for c in vars(boltzmann).values() if isinstance(c, type) and hasattr(c, "log_partition")}
    assert classes == {type(machine) for machine, *_ in MACHINES.values()}


@pytest.mark.parametrize("name", MACHINES)
class TestMachine:
    def test_is_one(self, name):
        machine = MACHINES[name][0]
        assert isinstance(machine, nn.Module)
        assert isinstance(machine, FreeEnergy)

    def test_sums_to_one(self, name):
        """A sum over all configurations; for densities over a grid that is fine beside σ = 1."""
        machine, points, weights, _ = MACHINES[name]
        assert (machine.log_prob(points).exp() @ weights).item() == pytest.approx(1, abs=1e-12)

    def test_log_prob_is_the_free_energy_less_log_z(self, name):
        machine, points, *_ = MACHINES[name]
        left = machine.log_prob(points) + machine.free_energy(points)
        torch.testing.assert_close(left, -machine.log_partition().expand(len(points)), rtol=1e-12, atol=1e-12)

    def test_the_score_has_mean_zero(self, name):
        """E[∂ log p/∂θ] = 0 for every parameter: the gradient of log Z is an average over the model."""
        machine, points, weights, _ = MACHINES[name]
        log = machine.log_prob(points)
        for slope in torch.autograd.grad((log.exp().detach() * weights) @ log, list(machine.parameters())):
            torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)

    def test_takes_its_own_draws_and_refuses_what_is_outside(self, name):
        machine, _, _, outside = MACHINES[name]
        x = machine.sample(20, seeded(1))
        assert machine.free_energy(x).shape == (20,)
        x[17, 0] = outside
        with pytest.raises(ValueError, match=r"x\[17, 0\] is"):
            machine.free_energy(x)
        with pytest.raises(ValueError, match=r"x\[17, 0\] is"):
            contrastive_loss(machine, x, x[:3])

    def test_a_loss_is_zero_where_data_and_model_rows_are_the_same(self, name):
        machine, *_ = MACHINES[name]
        x = machine.sample(20, seeded(1))
        assert contrastive_loss(machine, x, x).item() == 0


DATA = {
    f"digits, {p}, {k}": getattr(digits(p), k) for p in ("training", "validation", "test") for k in ("grey", "binary")
}
DATA |= {f"bars and stripes, {k}": bars_and_stripes(k) for k in (1, 2, 3, 4)}


@pytest.mark.parametrize("name", DATA)
class TestData:
    def test_is_float32_rows_in_the_unit_interval(self, name):
        x = DATA[name]
        assert (x.dtype, x.ndim, x.device.type) == (torch.float32, 2, "cpu")
        assert not x.requires_grad
        assert 0 <= x.min() < x.max() <= 1
        assert math.isqrt(x.shape[1]) ** 2 == x.shape[1]

    def test_fits_its_likelihood(self, name):
        if "grey" in name:
            Gaussian(1.0).check(DATA[name])
            with pytest.raises(ValueError, match="binarise"):
                Bernoulli().check(DATA[name])
        else:
            Bernoulli().check(DATA[name])

    def test_can_be_batched(self, name):
        x = DATA[name]
        (batch,) = Batches(x, 2, seeded(1), steps=1)
        assert batch.shape == (2, x.shape[1])


VECTORS = [torch.tensor(v, dtype=F64) for v in ([0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0])]


@pytest.mark.parametrize("divergence", [kl, js, tv], ids=lambda d: d.__name__)
class TestDivergence:
    def test_is_zero_at_equality_only(self, divergence):
        for (i, p), (j, q) in itertools.product(enumerate(VECTORS), repeat=2):
            assert divergence(p, q).item() == 0 if i == j else divergence(p, q).item() > 0.05

    def test_does_not_depend_on_the_order_of_outcomes(self, divergence):
        order = torch.tensor([2, 0, 1])
        for p, q in itertools.product(VECTORS, repeat=2):
            torch.testing.assert_close(divergence(p[order], q[order]), divergence(p, q), rtol=1e-14, atol=0)

    def test_does_not_rise_under_a_channel(self, divergence):
        """Data processing: the same random map applied to both sides brings them no further apart."""
        channel = torch.rand(3, 4, generator=seeded(1), dtype=F64).softmax(-1)
        for p, q in itertools.product(VECTORS, repeat=2):
            assert divergence(p @ channel, q @ channel) <= divergence(p, q) + 1e-15

    def test_is_convex_in_the_pair(self, divergence):
        for p, q, r, s in itertools.product(VECTORS[:3], repeat=4):
            mixed = divergence((p + r) / 2, (q + s) / 2)
            assert mixed <= (divergence(p, q) + divergence(r, s)) / 2 + 1e-15

    def test_leaves_its_arguments_as_they_are(self, divergence):
        p, q = VECTORS[0].clone(), VECTORS[2].clone()
        divergence(p, q)
        assert torch.equal(p, VECTORS[0])
        assert torch.equal(q, VECTORS[2])


@pytest.mark.parametrize("divergence", [js, tv], ids=lambda d: d.__name__)
def test_symmetric_divergences(divergence):
    for p, q in itertools.product(VECTORS, repeat=2):
        torch.testing.assert_close(divergence(p, q), divergence(q, p), rtol=1e-15, atol=0)


def test_pinsker():
    """TV ≤ √(KL/2), tight in the limit p → q."""
    for p, q in itertools.product(VECTORS, repeat=2):
        assert tv(p, q) <= (kl(p, q) / 2).sqrt() + 1e-15
    p, q = torch.tensor([0.5, 0.5], dtype=F64), torch.tensor([0.5 + 1e-6, 0.5 - 1e-6], dtype=F64)
    assert (tv(p, q) / (kl(p, q) / 2).sqrt()).item() == pytest.approx(1, abs=1e-9)
