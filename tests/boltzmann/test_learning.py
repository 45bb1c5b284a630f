"""One loss for exact learning, CD and PCD: its gradient, its chains, and what it refuses."""

import math
import re
from functools import partial

import pytest
import torch
from torch import nn

from lecturecode import seeded
from lecturecode.boltzmann import (
    BIT,
    SPIN,
    BoltzmannMachine,
    GaussianRestrictedBoltzmannMachine,
    Persistent,
    RestrictedBoltzmannMachine,
    contrastive_divergence,
    contrastive_loss,
    states,
)
from lecturecode.data import bars_and_stripes
from lecturecode.markov import gibbs
from lecturecode.training import Batches, Checkpoint, adam, fit

F64 = torch.float64


def filled(model, seed=1, scale=0.7):
    rng = seeded(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=rng, dtype=F64))
    return model


def restricted(alphabet=BIT, n=4, m=3):
    return filled(RestrictedBoltzmannMachine(n, m, alphabet=alphabet, dtype=F64))


def full(alphabet=SPIN, n=6):
    draws = torch.randn(n, n, generator=seeded(2), dtype=F64)
    return BoltzmannMachine((draws + draws.mT).fill_diagonal_(0) / 2, draws[0], alphabet)


def gradients(loss, model):
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


MODELS = {
    "restricted, bits": (restricted(BIT), BIT, lambda model, x: model.log_prob(x)),
    "restricted, spins": (restricted(SPIN), SPIN, lambda model, x: model.log_prob(x)),
    "all visible": (full(SPIN, 4), SPIN, lambda model, x: model.log_prob(x)),
    "two hidden": (full(BIT), BIT, lambda model, x: model.marginal_log_prob(x)),
}


@pytest.mark.parametrize("name", MODELS)
def test_with_all_states_the_gradient_is_that_of_the_likelihood(name):
    model, alphabet, log_prob = MODELS[name]
    x = states(4, alphabet)
    data = x[[3, 3, 7, 9, 14]]
    loss = contrastive_loss(model, data, x, log_prob(model, x).exp())
    wanted = gradients(-log_prob(model, data).mean(), model)
    for got, slope in zip(gradients(loss, model), wanted, strict=True):
        assert slope.abs().max() > 0.01
        torch.testing.assert_close(got, slope, rtol=0, atol=1e-12)


def test_the_gradient_is_the_difference_of_moments():
    """⟨x h⟩ under the data minus ⟨x h⟩ under the model, both by Python sums over all configurations."""
    model = restricted()
    rows = [tuple(row) for row in states(4, BIT).tolist()]
    hidden = [tuple(row) for row in states(3, BIT).tolist()]
    W, bx, bh = (p.tolist() for p in (model.weights, model.visible_bias, model.hidden_bias))

    def f(x, h):
        pairs = sum(W[i][j] * x[i] * h[j] for i in range(4) for j in range(3))
        return math.exp(
            pairs + sum(map(math.prod, zip(bx, x, strict=True))) + sum(map(math.prod, zip(bh, h, strict=True)))
        )

    def mean(i, j, given):
        """⟨x_i h_j⟩, x from `given` and h from p(h|x)."""
        total = 0.0
        for x, weight in given.items():
            fs = [f(x, h) for h in hidden]
            total += weight * x[i] * sum(v * h[j] for v, h in zip(fs, hidden, strict=True)) / sum(fs)
        return total

    Z = math.fsum(f(x, h) for x in rows for h in hidden)
    p = {x: math.fsum(f(x, h) for h in hidden) / Z for x in rows}
    data = {rows[3]: 0.4, rows[7]: 0.2, rows[9]: 0.2, rows[14]: 0.2}
    wanted = torch.tensor([[mean(i, j, p) - mean(i, j, data) for j in range(3)] for i in range(4)], dtype=F64)
    x = states(4, BIT)
    loss = contrastive_loss(model, x[[3, 3, 7, 9, 14]], x, model.log_prob(x).exp())
    torch.testing.assert_close(torch.autograd.grad(loss, model.weights)[0], wanted, rtol=0, atol=1e-12)


def test_without_weights_the_rows_count_equally():
    model, x = restricted(), states(4, BIT)
    some = x[[1, 5, 6]]
    equal = torch.full((3,), 1 / 3, dtype=F64)
    loss = contrastive_loss(model, x[:5], some)
    torch.testing.assert_close(loss, contrastive_loss(model, x[:5], some, equal), rtol=1e-14, atol=0)
    energies = model.free_energy(x)
    torch.testing.assert_close(loss, energies[:5].mean() - energies[[1, 5, 6]].mean(), rtol=1e-14, atol=0)


def test_neither_the_model_rows_nor_their_weights_carry_a_gradient():
    model, x = restricted(), states(4, BIT)
    rows, weights = x.clone().requires_grad_(), torch.full((16,), 1 / 16, dtype=F64, requires_grad=True)
    contrastive_loss(model, x[:3], rows, weights).backward()
    assert rows.grad is None
    assert weights.grad is None
    assert model.weights.grad is not None


def test_data_as_the_model_draws_them_give_no_gradient():
    """At zero parameters P is uniform, and so are all states once each: the stationarity condition."""
    model, x = RestrictedBoltzmannMachine(4, 3, dtype=F64), states(4, BIT)
    for slope in gradients(contrastive_loss(model, x, x, model.log_prob(x).exp()), model):
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-15)
    for slope in gradients(contrastive_loss(model, x[:8], x, model.log_prob(x).exp()), model)[:2]:
        assert slope.abs().max() > 0.1  # the last unit is off in the first eight


def test_cd_is_k_steps_of_gibbs():
    model, x = restricted(), states(4, BIT)
    rng = seeded(3)
    wanted = model.gibbs(model.gibbs(model.gibbs(x, rng), rng), rng)
    assert torch.equal(contrastive_divergence(model, x, 3, seeded(3)), wanted)
    assert torch.equal(contrastive_divergence(model.gibbs, x, 3, seeded(3)), wanted)
    assert torch.equal(x, states(4, BIT))


def test_a_machine_without_layers_takes_a_kernel():
    machine, x = full(SPIN, 4), states(4, SPIN)
    kernel, rng = gibbs(machine.conditional, SPIN), seeded(3)
    wanted = kernel(kernel(x, rng), rng)
    assert torch.equal(contrastive_divergence(kernel, x, 2, seeded(3)), wanted)
    assert torch.equal(Persistent(x).advance(kernel, 2, seeded(3)), wanted)
    assert not torch.equal(wanted, x)


def test_chains_persist():
    model, x = restricted(), states(4, BIT)
    chains, rng = Persistent(x), seeded(5)
    first, second = chains.advance(model, 1, rng).clone(), chains.advance(model, 2, rng)
    assert torch.equal(contrastive_divergence(model, x, 1, seeded(5)), first)
    assert torch.equal(contrastive_divergence(model, x, 3, seeded(5)), second)
    assert torch.equal(chains.x, second)
    assert not list(chains.parameters())


def _run(steps, folder, resume_at=None):
    rng = seeded(6)
    model = RestrictedBoltzmannMachine(9, 4, rng)
    chains = Persistent(bars_and_stripes(3))
    optimizer, batches = adam(model, 0.05), Batches(bars_and_stripes(3), 5, rng, steps=steps)
    checkpoint = Checkpoint(model=model, optimizer=optimizer, chains=chains, rng=rng, batches=batches)
    if resume_at is not None:
        checkpoint.load(folder / "run")

    def loss(x):
        return contrastive_loss(model, x, chains.advance(model, 2, rng))

    for step in fit(loss, batches, optimizer):
        if resume_at is None and step.number == 7:
            checkpoint.save(folder / "run", step)
    return [p.detach().clone() for p in model.parameters()], chains.x


def test_a_persistent_run_resumes_to_the_last_bit(tmp_path):
    whole, chains = _run(15, tmp_path)
    resumed, resumed_chains = _run(15, tmp_path, resume_at=7)
    assert torch.equal(chains, resumed_chains)
    for a, b in zip(whole, resumed, strict=True):
        assert torch.equal(a, b)


def test_exact_learning_reaches_the_data():
    """2 × 2 bars and stripes, 6 patterns: 600 steps of Adam end within 0.02 nats of log 6, the best there is."""
    x = bars_and_stripes(2).to(F64)
    model, everything = RestrictedBoltzmannMachine(4, 6, seeded(2), dtype=F64), states(4, BIT)
    model.weights.data *= 30
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(600):
        optimizer.zero_grad()
        contrastive_loss(model, x, everything, model.log_prob(everything).exp()).backward()
        optimizer.step()
    best = math.log(len(x))
    assert best < -model.log_prob(x).mean().item() < best + 0.02


def test_cd_and_pcd_train():
    """CD-3 and PCD-3 end a nat or more above the uniform distribution: 120 steps, seeds fixed."""
    x = bars_and_stripes(3).repeat(10, 1)
    for persistent in (False, True):
        rng = seeded(4)
        model, chains = RestrictedBoltzmannMachine(9, 12, rng), Persistent(x)
        optimizer = adam(model, 0.05)

        def loss(batch, model=model, chains=chains, rng=rng, persistent=persistent):
            moved = chains.advance(model, 3, rng) if persistent else contrastive_divergence(model, batch, 3, rng)
            return contrastive_loss(model, batch, moved)

        for _ in fit(loss, [x] * 120, optimizer):
            pass
        assert model.log_prob(x).mean() > 1 - 9 * math.log(2)


def test_real_visible_units_learn_by_the_same_loss():
    model = filled(GaussianRestrictedBoltzmannMachine(2, 2, dtype=F64))
    x = torch.randn(6, 2, generator=seeded(1), dtype=F64)
    moved = contrastive_divergence(model, x, 2, seeded(1))
    slopes = gradients(contrastive_loss(model, x, moved), model)
    assert all(s.isfinite().all() and s.any() for s in slopes)


def test_it_follows_dtype_and_device(dtype, device):
    model = RestrictedBoltzmannMachine(4, 3, seeded(1), dtype=dtype).to(device)
    x = states(4, BIT, dtype, device)
    chains = Persistent(x)
    for moved in (contrastive_divergence(model, x, 1, seeded(1)), chains.advance(model, 1, seeded(1))):
        assert (moved.dtype, moved.device.type) == (dtype, device.type)
    loss = contrastive_loss(model, x, moved, model.log_prob(x).exp())
    assert (loss.dtype, loss.device.type) == (dtype, device.type)


X = states(4, BIT)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: contrastive_loss(restricted(), X[:0], X), "x_data is empty"),
        (lambda: contrastive_loss(restricted(), X, X[:0]), "x_model is empty"),
        (lambda: contrastive_loss(restricted(), X[0], X), "x_data has shape (4,)"),
        (lambda: contrastive_loss(restricted(), X, X[:, :3]), "x_model has shape (16, 3), not (any, 4)"),
        (lambda: contrastive_loss(restricted(), X[:, :3], X[:, :3]), "x has 3 units on its last axis and the model 4"),
        (lambda: contrastive_loss(restricted(), X + math.nan, X), "x[0, 0] is nan"),
        (lambda: contrastive_loss(restricted(), X, 2 * X - 1), "x[0, 0] is -1"),
        (lambda: contrastive_loss(restricted(), X, X.float()), "x_data is torch.float64 and x_model torch.float32"),
        (lambda: contrastive_loss(restricted(), X.float(), X.float()), "x is torch.float32 and the model"),
        (lambda: contrastive_loss(restricted(), X, X.to("meta")), "x_data is on cpu and x_model on meta"),
        (lambda: contrastive_loss(restricted(), X, X, X[:, 0]), "weights sums to 8"),
        (lambda: contrastive_loss(restricted(), X, X, torch.full((3,), 1 / 3, dtype=F64)), "weights has shape (3,)"),
        (lambda: contrastive_loss(restricted(), X, X, torch.full((16,), math.nan, dtype=F64)), "weights[0] is nan"),
        (lambda: contrastive_loss(restricted(), X, X, torch.full((16,), 1 / 16)), "and weights torch.float32"),
        (lambda: contrastive_divergence(restricted(), X, 0, seeded(1)), "steps is 0"),
        (lambda: contrastive_divergence(restricted(), X[:0], 1, seeded(1)), "x is empty"),
        (lambda: contrastive_divergence(full(), X, 1, seeded(1)), "a BoltzmannMachine has no method gibbs(x, rng)"),
        (lambda: contrastive_divergence(nn.Linear(4, 4), X, 1, seeded(1)), "pass a kernel (x, rng) -> x"),
        (lambda: Persistent(X[:0]), "x is empty"),
        (lambda: Persistent(X / 0), "values are not finite"),
        (lambda: Persistent(X).advance(restricted(), 0, seeded(1)), "steps is 0"),
        (lambda: Persistent(2 * X - 1).advance(restricted(), 1, seeded(1)), "x[0, 0] is -1"),
    ],
)
def test_it_refuses_at_the_door(act, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        act()


def test_a_loss_can_be_bound_for_fit():
    """contrastive_loss by functools.partial: exact learning with weights made once an epoch."""
    model = RestrictedBoltzmannMachine(4, 2, seeded(1), dtype=F64)
    before = model.log_prob(X[:3]).mean().item()
    loss = partial(contrastive_loss, model, x_model=X, weights=model.log_prob(X).exp().detach())
    for step in fit(loss, [X[:3]] * 5, adam(model, 0.05)):
        assert math.isfinite(step.value)
    assert model.log_prob(X[:3]).mean().item() > before
