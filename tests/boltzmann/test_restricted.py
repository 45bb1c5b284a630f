"""Restricted machines: log Z, moments and draws against sums in mpmath and Python, and what is refused."""

import itertools
import math
import re
import time

import mpmath
import pytest
import torch

from lecturecode import seeded
from lecturecode.boltzmann import BIT, SPIN, RestrictedBoltzmannMachine, bipartite, states

F64 = torch.float64
ALPHABETS = pytest.mark.parametrize("alphabet", [BIT, SPIN], ids=["bits", "spins"])


def machine(n, m, alphabet=BIT, scale=1.0, seed=1, dtype=F64, device="cpu"):
    rbm = RestrictedBoltzmannMachine(n, m, alphabet=alphabet, dtype=F64)
    rng = seeded(seed)
    with torch.no_grad():
        for p in rbm.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=rng, dtype=F64))
    return rbm.to(device=device, dtype=dtype)


def exact_energies(rbm):
    """{(x, h): −E} with mpmath numbers made from the very floats of the machine."""
    W = [[mpmath.mpf(w) for w in row] for row in rbm.weights.tolist()]
    bx, bh = ([mpmath.mpf(b) for b in p.tolist()] for p in (rbm.visible_bias, rbm.hidden_bias))
    everything = {}
    for x in itertools.product(rbm.alphabet, repeat=rbm.n):
        for h in itertools.product(rbm.alphabet, repeat=rbm.m):
            pairs = mpmath.fsum(W[i][j] * x[i] * h[j] for i in range(rbm.n) for j in range(rbm.m))
            own = [b * s for b, s in zip((*bx, *bh), (*x, *h), strict=True)]
            everything[x, h] = pairs + mpmath.fsum(own)
    return everything


@ALPHABETS
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 1), (1, 3), (5, 4), (3, 7), (4, 4)])
@pytest.mark.parametrize("scale", [0.3, 3.0, 1000.0])
def test_log_partition_and_moments_against_mpmath(n, m, alphabet, scale):
    """40 digits; |W| up to thousands, where e^{1000} overflows and e^{−1000} underflows."""
    rbm = machine(n, m, alphabet, scale)
    with mpmath.workdps(40):
        weights = {s: mpmath.exp(w) for s, w in exact_energies(rbm).items()}
        Z = mpmath.fsum(weights.values())
        log_z = float(mpmath.log(Z))

        def mean(g):
            return float(mpmath.fsum(w * g(*s) for s, w in weights.items()) / Z)

        x = [mean(lambda x, h, i=i: x[i]) for i in range(n)]
        h = [mean(lambda x, h, j=j: h[j]) for j in range(m)]
        xh = [[mean(lambda x, h, i=i, j=j: x[i] * h[j]) for j in range(m)] for i in range(n)]
    assert abs(rbm.log_partition().item() - log_z) <= 1e-12 * max(1, abs(log_z))
    moments = rbm.moments()
    # an average moves with log Z's own rounding: absolute 1e-12 at energies of order one, 1e-9 at 10⁴
    delta = 1e-12 if scale < 1000 else 1e-9
    for got, wanted in ((moments.visible, x), (moments.hidden, h), (moments.product, xh)):
        torch.testing.assert_close(got, torch.tensor(wanted, dtype=F64), rtol=0, atol=delta)


@ALPHABETS
def test_log_prob_and_free_energy_against_mpmath(alphabet):
    rbm = machine(4, 3, alphabet, 2.0)
    with mpmath.workdps(40):
        energies = exact_energies(rbm)
        Z = mpmath.fsum(map(mpmath.exp, energies.values()))
        rows = sorted({x for x, _ in energies})
        f = [mpmath.fsum(mpmath.exp(w) for (x, _), w in energies.items() if x == row) for row in rows]
        free, log_p = ([float(v) for v in vs] for vs in ([-mpmath.log(v) for v in f], [mpmath.log(v / Z) for v in f]))
    x = torch.tensor(rows, dtype=F64)
    torch.testing.assert_close(rbm.free_energy(x), torch.tensor(free, dtype=F64), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(rbm.log_prob(x), torch.tensor(log_p, dtype=F64), rtol=1e-12, atol=1e-12)


@ALPHABETS
@pytest.mark.parametrize("scale", [0.4, 12.0, 120.0, 1000.0])
def test_large_layers_against_the_plain_sum(alphabet, scale):
    """40 × 11 units: several blocks, every mixture of grouped and single units; against log(1 + e^a) entry by entry."""
    rbm = machine(40, 11, alphabet, scale, seed=3)
    h = states(11, alphabet)
    lower, upper = alphabet
    field = rbm.visible_bias + h @ rbm.weights.mT
    log_f = h @ rbm.hidden_bias + torch.logaddexp(lower * field, upper * field).sum(-1)
    torch.testing.assert_close(rbm.log_partition(), log_f.logsumexp(0), rtol=1e-13, atol=0)
    p = (log_f - log_f.logsumexp(0)).exp()
    x = lower + (upper - lower) * torch.sigmoid((upper - lower) * field)
    moments = rbm.moments()
    delta = 1e-12 * max(1, scale)
    torch.testing.assert_close(moments.visible, (p @ x).detach(), rtol=0, atol=delta)
    torch.testing.assert_close(moments.hidden, (p @ h).detach(), rtol=0, atol=delta)
    torch.testing.assert_close(moments.product, (x.mT @ (p[:, None] * h)).detach(), rtol=0, atol=delta)


@pytest.mark.parametrize(("dtype", "delta"), [(torch.float32, 1e-6), (F64, 1e-14)])
def test_every_precision_holds_its_own(dtype, delta):
    """What a device without float64 does, on the CPU: Δ log Z against the plain float64 sum, beside the largest term.

    40 machines with units of scales from 0.03 to 3,000, in every second of them halves that cancel.
    """
    rng = seeded(11)
    for k in range(40):
        p, q = 3 + k, 2 + k % 8
        scale = 10 ** (5 * torch.rand(p, 1, generator=rng, dtype=F64) - 1.5)
        W = scale * torch.randn(p, q, generator=rng, dtype=F64)
        if k % 2:
            W[:, q // 2 : 2 * (q // 2)] = -W[:, : q // 2]
        W, b, c = (x.to(dtype) for x in (W, -W.sum(1) / 2, -W.clamp(min=0).sum(0) / 2))
        h, wide = states(q, BIT), W.double()
        field = h @ wide.mT + b.double()
        linear, wide_part = h @ c.double(), torch.logaddexp(torch.zeros_like(field), field).sum(1)
        wanted, largest = (linear + wide_part).logsumexp(0), max(linear.abs().max(), wide_part.max())
        got = bipartite.log_sum(W, b, c)
        assert got.dtype == dtype
        assert abs(got.double() - wanted) <= delta * max(1, largest)


def test_fields_that_cancel_are_not_lost():
    """Halves with fields ±c: both exponentials of a unit vanish after scaling, and the factor is 2 (or e^{c})."""
    for c in (50.0, 199.0, 201.0, 650.0, 1e5):
        rbm = RestrictedBoltzmannMachine(7, 2, dtype=F64)
        with torch.no_grad():
            rbm.weights[:, 0], rbm.weights[:, 1] = c, -c
        with mpmath.workdps(60):
            e = mpmath.exp(mpmath.mpf(c))
            wanted = float(mpmath.log(2 * 2**7 + (1 + e) ** 7 + (1 + 1 / e) ** 7))
        assert rbm.log_partition().item() == pytest.approx(wanted, rel=1e-14)
        h_on = rbm.moments().hidden
        assert h_on[0].item() == pytest.approx(1, abs=1e-12)
        assert h_on[1].item() == pytest.approx(2**7 * math.exp(-7 * c) if c < 100 else 0, rel=1e-10)


def test_every_block_counts():
    """Tiles of 16 states in place of 65,536: the same number."""
    rbm = machine(9, 8)
    whole, before = rbm.log_partition(), rbm.moments()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bipartite, "TILE", 16)
        patch.setattr(bipartite, "RIGHT", 3)
        torch.testing.assert_close(rbm.log_partition(), whole, rtol=1e-14, atol=0)
        torch.testing.assert_close(rbm.moments().product, before.product, rtol=1e-13, atol=0)


@ALPHABETS
@pytest.mark.parametrize(("n", "m"), [(5, 3), (3, 5)])
def test_gradcheck(n, m, alphabet):
    rbm = machine(n, m, alphabet, 0.8)
    names, values = zip(*rbm.named_parameters(), strict=True)
    x = states(n, alphabet)[:6]

    def log_prob(*values):
        return torch.func.functional_call(
            _LogProb(rbm), {f"rbm.{k}": v for k, v in zip(names, values, strict=True)}, (x,)
        )

    assert torch.autograd.gradcheck(log_prob, tuple(v.detach().clone().requires_grad_() for v in values))


class _LogProb(torch.nn.Module):
    def __init__(self, rbm):
        super().__init__()
        self.rbm = rbm

    def forward(self, x):
        return self.rbm.log_prob(x)


def test_the_gradient_is_the_moments_and_leaves_nothing_behind():
    rbm = machine(5, 3)
    moments = rbm.moments()
    assert all(p.grad is None for p in rbm.parameters())
    rbm.log_partition().backward()
    for parameter, moment in zip(rbm.parameters(), (moments.product, moments.visible, moments.hidden), strict=True):
        assert torch.equal(parameter.grad, moment)
        assert not moment.requires_grad


@ALPHABETS
def test_the_second_derivative_is_the_covariance(alphabet):
    """∂²log Z/∂b_i∂W_kl = Cov(x_i, x_k h_l), by Python sums over both layers."""
    rbm = machine(3, 2, alphabet)
    slope = torch.autograd.grad(rbm.log_partition(), rbm.visible_bias, create_graph=True)[0]
    curvature = torch.stack([torch.autograd.grad(s, rbm.weights, retain_graph=True)[0] for s in slope])
    weights = {s: math.exp(w) for s, w in exact_energies(rbm).items()}
    Z = math.fsum(weights.values())

    def mean(g):
        return math.fsum(w * g(*s) for s, w in weights.items()) / Z

    for i, k, j in itertools.product(range(3), range(3), range(2)):
        apart = mean(lambda x, h, i=i: x[i]) * mean(lambda x, h, k=k, j=j: x[k] * h[j])
        together = mean(lambda x, h, i=i, k=k, j=j: x[i] * x[k] * h[j])
        assert curvature[i, k, j].item() == pytest.approx(together - apart, abs=1e-12)


def test_a_second_derivative_of_a_large_machine_is_refused():
    with pytest.raises(ValueError, match=r"holds a table of 2\^21 · 30 fields"):
        bipartite._moments_by_table(torch.zeros(30, 21), torch.zeros(30), torch.zeros(21))


@ALPHABETS
def test_joint_is_the_same_distribution(alphabet):
    rbm = machine(5, 4, alphabet)
    whole = rbm.joint()
    torch.testing.assert_close(whole.log_partition(), rbm.log_partition(), rtol=1e-12, atol=0)
    s = states(9, alphabet)
    torch.testing.assert_close(whole.energy(s), rbm.energy(s[:, :5], s[:, 5:]), rtol=1e-12, atol=1e-12)
    x = states(5, alphabet)
    torch.testing.assert_close(whole.free_energy(x), rbm.free_energy(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.marginal_log_prob(x), rbm.log_prob(x), rtol=1e-12, atol=1e-12)
    moments, second = rbm.moments(), whole.moments().second
    torch.testing.assert_close(second[:5, 5:], moments.product, rtol=0, atol=1e-12)


@ALPHABETS
def test_conditionals_by_counting(alphabet):
    """P(h_j = u | x) and P(x_i = u | h) as ratios of sums of f over all configurations of both layers."""
    rbm = machine(3, 4, alphabet)
    x, h = states(3, alphabet), states(4, alphabet)
    f = torch.tensor([[math.exp(-rbm.energy(a, b).item()) for b in h] for a in x], dtype=F64)
    upper = alphabet[1]
    hidden = f @ (h == upper).to(F64) / f.sum(1, keepdim=True)
    visible = f.mT @ (x == upper).to(F64) / f.sum(0)[:, None]
    torch.testing.assert_close(rbm.hidden(x), hidden, rtol=1e-12, atol=0)
    torch.testing.assert_close(rbm.visible(h), visible, rtol=1e-12, atol=0)


@ALPHABETS
def test_the_gibbs_step_keeps_the_distribution(alphabet):
    """T(x→y) = Σ_h P(h|x) P(y|h), built by hand: T P = P, and P(x) T(x→y) is symmetric."""
    rbm = machine(4, 3, alphabet)
    x, h = states(4, alphabet), states(3, alphabet)

    def table(on, s):
        """Probabilities of the rows of s under independent units."""
        return torch.where((s == alphabet[1])[None], on[:, None], 1 - on[:, None]).prod(-1)

    step = table(rbm.hidden(x), h) @ table(rbm.visible(h), x)
    p = rbm.log_prob(x).exp()
    torch.testing.assert_close(p @ step, p, rtol=1e-12, atol=0)
    flow = p[:, None] * step
    torch.testing.assert_close(flow, flow.mT, rtol=1e-12, atol=1e-17)


@ALPHABETS
def test_gibbs_draws_its_own_kernel(alphabet):
    """20,000 steps from one x; every one of 8 frequencies within 5σ of the row of T built by hand."""
    rbm, count = machine(3, 2, alphabet), 20_000
    x, h = states(3, alphabet), states(2, alphabet)
    start = x[5]
    row = torch.zeros(8, dtype=F64)
    for b in h:
        given_x = torch.where(b == alphabet[1], rbm.hidden(start), 1 - rbm.hidden(start)).prod()
        given_h = torch.where(x == alphabet[1], rbm.visible(b), 1 - rbm.visible(b)).prod(-1)
        row += (given_x * given_h).detach()
    drawn = rbm.gibbs(start.expand(count, 3), seeded(7))
    _within_five_sigma(drawn, x, row)


@ALPHABETS
@pytest.mark.parametrize(("n", "m"), [(4, 3), (3, 5)])
@pytest.mark.parametrize("tile", [4, 2**16])
def test_sample_draws_the_exact_distribution(n, m, alphabet, tile, monkeypatch):
    """20,000 independent draws; every frequency within 5σ of P(x). One block, and many."""
    monkeypatch.setattr(bipartite, "TILE", tile)
    rbm = machine(n, m, alphabet)
    x = states(n, alphabet)
    _within_five_sigma(rbm.sample(20_000, seeded(8)), x, rbm.log_prob(x).exp())


def _within_five_sigma(drawn, x, p):
    count = len(drawn)
    assert drawn.shape == (count, x.shape[1])
    frequency = (drawn[:, None] == x).all(-1).to(F64).mean(0)
    assert frequency.sum() == pytest.approx(1, abs=1e-12)
    assert ((frequency - p).abs() <= 5 * (p * (1 - p) / count).sqrt()).all()


def test_draws_repeat_with_their_seed_and_ignore_the_global_one():
    rbm = machine(6, 4)
    x = states(6, BIT)[10:20]
    before = torch.get_rng_state()
    for draw in (lambda k: rbm.sample(50, seeded(k)), lambda k: rbm.gibbs(x, seeded(k))):
        assert torch.equal(draw(1), draw(1))
        assert not torch.equal(draw(1), draw(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_float32_is_the_exact_answer_rounded():
    """784 × 12, 1e-6 relative: the sum runs in float64 over the float32 parameters."""
    small = machine(784, 12, scale=0.2, dtype=torch.float32)
    large = machine(784, 12, scale=0.2, dtype=torch.float32).double()
    wanted = large.log_partition().item()
    assert small.log_partition().dtype == torch.float32
    assert abs(small.log_partition().item() - wanted) <= 1e-6 * abs(wanted)
    torch.testing.assert_close(small.moments().product.double(), large.moments().product, rtol=1e-6, atol=1e-30)


@ALPHABETS
def test_it_follows_dtype_and_device(alphabet, dtype, device):
    rbm = machine(4, 3, alphabet, dtype=dtype, device=device)
    there = machine(4, 3, alphabet)
    x = states(4, alphabet, dtype, device)
    h = rbm._labels(torch.ones(16, 3, dtype=dtype, device=device))
    values = {
        "log_partition": rbm.log_partition(),
        "log_prob": rbm.log_prob(x),
        "energy": rbm.energy(x, h),
        "hidden": rbm.hidden(x),
        "visible": rbm.visible(h),
        "gibbs": rbm.gibbs(x, seeded(1)),
        "sample": rbm.sample(5, seeded(1)),
        "moments": rbm.moments().product,
    }
    for value in values.values():
        assert (value.dtype, value.device.type) == (dtype, device.type)
    torch.testing.assert_close(
        values["log_prob"].cpu().double(), there.log_prob(states(4, alphabet)), rtol=1e-5, atol=1e-5
    )


def test_memory_does_not_grow_with_the_states():
    """2^17 states × 6 units: one block at a time, and a row of numbers for each left half."""
    layers = bipartite.Layers(torch.zeros(6, 17, dtype=F64), torch.zeros(6, dtype=F64), torch.zeros(17, dtype=F64))
    assert layers.buffer.numel() == bipartite.TILE
    assert layers.row_sums().numel() == 2**9
    assert layers.row_sums().logsumexp(0).item() == pytest.approx(23 * math.log(2), rel=1e-15)


@ALPHABETS
def test_the_limit_is_said_at_once(alphabet):
    rbm = RestrictedBoltzmannMachine(500, 31, alphabet=alphabet)
    start = time.perf_counter()
    for work in (rbm.log_partition, rbm.moments, lambda: rbm.sample(3, seeded(1))):
        with pytest.raises(ValueError, match=r"31 units: 2\^31 states; at most 30 .*limit=.*lecturecode.markov.ais"):
            work()
    assert time.perf_counter() - start < 1
    small = RestrictedBoltzmannMachine(4, 3, alphabet=alphabet)
    with pytest.raises(ValueError, match="at most 2 are allowed"):
        small.log_partition(limit=2)
    assert small.log_partition(limit=3).item() == pytest.approx(7 * math.log(2), rel=1e-6)


def test_weights_start_small_and_from_the_generator():
    """4,000 draws of N(0, 0.01²): standard deviation within 5σ, σ/√(2·4000)."""
    rbm = RestrictedBoltzmannMachine(80, 50, seeded(1))
    assert abs(rbm.weights.std().item() / 0.01 - 1) < 5 / math.sqrt(8000)
    assert torch.equal(rbm.weights, RestrictedBoltzmannMachine(80, 50, seeded(1)).weights)
    assert not RestrictedBoltzmannMachine(80, 50).weights.any()
    assert rbm.weights.dtype == torch.float32


def _spoiled():
    rbm = machine(3, 2)
    with torch.no_grad():
        rbm.weights[2, 1] = math.nan
    return rbm


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: RestrictedBoltzmannMachine(0, 3), "a machine with 0 visible and 3 hidden units"),
        (lambda: RestrictedBoltzmannMachine(3, 3, alphabet=(0, 2)), "the alphabet is (0, 2)"),
        (lambda: machine(3, 2).free_energy(torch.full((1, 3), 0.5, dtype=F64)), "x[0, 0] is 0.5"),
        (lambda: machine(3, 2).free_energy(-torch.ones(1, 3, dtype=F64)), "x[0, 0] is -1"),
        (lambda: machine(3, 2, SPIN).hidden(torch.zeros(1, 3, dtype=F64)), "x[0, 0] is 0, and the units take -1 and 1"),
        (lambda: machine(3, 2).gibbs(torch.full((1, 3), math.nan, dtype=F64), seeded(1)), "x[0, 0] is nan"),
        (lambda: machine(3, 2).log_prob(torch.zeros(0, 3, dtype=F64)), "x has shape (0, 3)"),
        (lambda: machine(3, 2).hidden(torch.zeros(4, 2, dtype=F64)), "x has 2 units on its last axis and the model 3"),
        (lambda: machine(3, 2).visible(torch.zeros(4, 3, dtype=F64)), "h has 3 units on its last axis and the model 2"),
        (lambda: machine(3, 2).energy(*2 * [torch.zeros(4, 3, dtype=F64)]), "h has 3 units"),
        (lambda: machine(3, 2).free_energy(torch.zeros(4, 3)), "x is torch.float32 and the model torch.float64"),
        (lambda: machine(3, 2).free_energy(torch.zeros(4, 3, dtype=F64, device="meta")), "x is on meta and model on"),
        (lambda: machine(3, 2).sample(0, seeded(1)), "count is 0"),
        (lambda: _spoiled().log_partition(), "weights[2, 1] is nan"),
        (lambda: _spoiled().sample(3, seeded(1)), "weights[2, 1] is nan"),
    ],
)
def test_it_refuses_at_the_door(act, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        act()
