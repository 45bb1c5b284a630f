"""Discrete diffusion against plain loops over states and paths, in fractions where a number is exact."""

import inspect
import itertools
import math
import re
import time
from fractions import Fraction

import pytest
import torch
from torch.testing import assert_close

from lecturecode import kl, seeded
from lecturecode.boltzmann import BIT, states
from lecturecode.diffusion import (
    DiscreteDenoiser,
    DiscreteProcess,
    EnumeratedDiffusion,
    all_states,
    bound_terms,
    model_distribution,
    row_numbers,
    sample_sites,
    tabulated,
)
from lecturecode.markov import MarkovChain
from lecturecode.nn import mlp

f64 = torch.float64


def crooked(steps=3, k=3, seed=0):
    """A process with no symmetry at all."""
    table = torch.rand(steps, k, k, generator=seeded(seed), dtype=f64) + 0.2
    return DiscreteProcess(table / table.sum(1, keepdim=True))


PROCESSES = {
    "uniform": (DiscreteProcess.uniform([0.1, 0.3, 0.5], 3), 2),
    "flips": (DiscreteProcess.flips([0.05, 0.2, 0.3, 0.45]), 3),
    "absorbing": (DiscreteProcess.absorbing([0.2, 0.5, 0.7], 2), 2),
    "absorbing to the end": (DiscreteProcess.absorbing([0.25, 0.5, 1.0], 2), 2),
    "crooked": (crooked(), 2),
}


def data(process, n, seed=1):
    """Some distribution over all states; a mask does not occur in it."""
    p = torch.rand(process.categories**n, generator=seeded(seed), dtype=f64) + 0.05
    if (process.matrices[:, -1, -1] == 1).all():
        p[(all_states(n, process.categories) == process.categories - 1).any(1)] = 0
    return p / p.sum()


@pytest.fixture(params=PROCESSES)
def case(request):
    process, n = PROCESSES[request.param]
    return process, n, EnumeratedDiffusion(process, data(process, n))


def words(n, k):
    """All states as tuples, site 0 first, in the order of the rows: site 0 is the lowest digit."""
    return [tuple(reversed(word)) for word in itertools.product(range(k), repeat=n)]


def entry(matrix, after, before):
    """Π_i matrix[after_i, before_i], in Python numbers."""
    return math.prod(matrix[a][b] for a, b in zip(after, before, strict=True))


def paths(process, n, p0):
    """(x_0, …, x_T) with its probability, for each path of the process."""
    rows, tables = words(n, process.categories), process.matrices.tolist()
    for path in itertools.product(range(len(rows)), repeat=process.steps + 1):
        weight = float(p0[path[0]])
        for t, table in enumerate(tables):
            weight *= entry(table, rows[path[t + 1]], rows[path[t]])
        yield path, weight


# --- the process -----------------------------------------------------------------------------------------------------


def test_the_matrices_of_the_three_kinds():
    third = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
    assert_close(DiscreteProcess.uniform([0.3], 3).matrices[0], torch.tensor(third, dtype=f64))
    flip = [[0.75, 0.25], [0.25, 0.75]]
    assert DiscreteProcess.flips([0.25]).matrices[0].tolist() == flip
    assert_close(DiscreteProcess.uniform([0.5], 2).matrices[0], torch.tensor(flip, dtype=f64))
    mask = [[0.75, 0, 0], [0, 0.75, 0], [0.25, 0.25, 1]]
    assert DiscreteProcess.absorbing([0.25], 2).matrices[0].tolist() == mask


def test_many_steps_are_the_ordered_product():
    process = crooked()
    exact = [[Fraction(v) for v in row] for row in process.matrices[0].tolist()]
    for t in (1, 2):
        step = [[Fraction(v) for v in row] for row in process.matrices[t].tolist()]
        exact = [[sum(step[i][m] * exact[m][j] for m in range(3)) for j in range(3)] for i in range(3)]
        got = process.cumulative[t + 1]
        assert_close(got, torch.tensor([[float(v) for v in row] for row in exact], dtype=f64), rtol=1e-14, atol=0)
    assert_close(process.cumulative[0], torch.eye(3, dtype=f64))


def test_the_signal_is_the_share_of_sites_that_no_step_touched():
    rates = torch.tensor([0.1, 0.3, 0.5], dtype=f64)
    kept = torch.cat([torch.ones(1, dtype=f64), (1 - rates).cumprod(0)])
    assert_close(DiscreteProcess.uniform(rates, 4).signal, kept)
    assert_close(DiscreteProcess.absorbing(rates, 4).signal, kept)
    assert DiscreteProcess.flips([0.1, 0.5]).signal[-1] == 0


def test_marginal_and_posterior_by_bayes(case):
    process, _, _ = case
    k = process.categories
    pairs = torch.tensor(list(itertools.product(range(k), repeat=2)))
    x0, xt = pairs[:, :1], pairs[:, 1:]
    for t in range(1, process.steps + 1):
        assert_close(process.marginal(x0, t)[:, 0], process.cumulative[t][:, x0[:, 0]].mT)
        got = process.posterior(x0, xt, t)[:, 0]
        before, step = process.cumulative[t - 1].tolist(), process.matrices[t - 1].tolist()
        for row, (j, i) in enumerate(pairs.tolist()):
            joint = [step[i][m] * before[m][j] for m in range(k)]
            wanted = [v / sum(joint) if sum(joint) else 1 / k for v in joint]
            assert_close(got[row], torch.tensor(wanted, dtype=f64))


def test_one_time_for_all_or_one_for_each_row():
    process = crooked()
    x0, xt = all_states(2, 3), all_states(2, 3).flip(0)
    t = torch.tensor([1, 2, 3] * 3)
    p = torch.rand(9, 2, 3, generator=seeded(3), dtype=f64)
    p = p / p.sum(-1, keepdim=True)
    for rule in (
        lambda rows, t: process.marginal(x0[rows], t),
        lambda rows, t: process.posterior(x0[rows], xt[rows], t),
        lambda rows, t: process.reverse(p[rows], xt[rows], t),
        lambda rows, t: process.posterior_of(p[rows], xt[rows], t),
    ):
        for row in range(9):
            assert_close(rule(slice(None), t)[row], rule(slice(row, row + 1), int(t[row]))[0])


def test_reverse_is_the_mean_of_the_posterior_over_x0(case):
    process, _, _ = case
    k = process.categories
    p = torch.rand(k, 1, k, generator=seeded(4), dtype=f64) + 0.1
    p = p / p.sum(-1, keepdim=True)
    xt = torch.arange(k)[:, None]
    for t in range(1, process.steps + 1):
        possible = torch.where(process.cumulative[t][xt] > 0, p, 0.0)
        total = possible.sum(-1, keepdim=True)
        possible = torch.where(total > 0, possible / total, 1 / k)  # not reached from anywhere: uniform
        wanted = sum(possible[:, :, j, None] * process.posterior(torch.full_like(xt, j), xt, t) for j in range(k))
        assert_close(process.reverse(p, xt, t), wanted)
        assert_close(process.reverse(p, xt, t).sum(-1), torch.ones(k, 1, dtype=f64))


def test_the_form_of_austin_is_the_same_after_one_bayes(case):
    """p_θ ∝ Σ_j q(x_{t−1}, x_t | x_0 = j) p̃(j): the mean over p̃ weighted by q(x_t | j)."""
    process, _, _ = case
    k = process.categories
    before = torch.rand(k, 1, k, generator=seeded(5), dtype=f64) + 0.1
    xt = torch.arange(k)[:, None]
    for t in range(1, process.steps + 1):
        joint = process.matrices[t - 1][xt] * (before @ process.cumulative[t - 1].mT)
        got = process.reverse(process.posterior_of(before, xt, t), xt, t)
        total = joint.sum(-1, keepdim=True)
        assert_close(got, torch.where(total > 0, joint / total, 1 / k))


def test_what_cannot_have_been_gets_no_weight():
    """A site that is not masked was never masked: it stays, whatever the network says, in float32 too."""
    process = DiscreteProcess.absorbing([0.5, 0.5], 2)
    xt = torch.tensor([[0, 1]])
    said = torch.tensor([[[0.0, 1.0, 0.0], [0.3, 0.3, 0.4]]])
    assert_close(process.reverse(said, xt, 2), torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]))


def test_noise_is_drawn_from_the_marginal():
    """60,000 draws, one site: each frequency within five standard errors."""
    process = crooked()
    count = 60_000
    x0 = torch.full((count, 1), 1)
    p = process.cumulative[3][:, 1]
    seen = torch.bincount(process.noise(x0, 3, seeded(6))[:, 0], minlength=3) / count
    assert ((seen - p).abs() < 5 * (p * (1 - p) / count).sqrt()).all()


# --- enumeration -----------------------------------------------------------------------------------------------------


def test_the_order_of_the_states():
    for n, k in ((3, 2), (2, 3), (1, 4)):
        assert [tuple(row) for row in all_states(n, k).tolist()] == words(n, k)
        assert row_numbers(all_states(n, k), k).tolist() == list(range(k**n))
    assert_close(all_states(4).to(f64), states(4, BIT))


def test_marginals_and_reverse_matrices_by_loops(case):
    process, n, exact = case
    rows = words(n, process.categories)
    p = exact.data.tolist()
    for t, table in enumerate(process.matrices.tolist(), start=1):
        forward = [[entry(table, after, before) for before in rows] for after in rows]
        after = [sum(forward[i][j] * p[j] for j in range(len(rows))) for i in range(len(rows))]
        assert_close(exact.marginal(t), torch.tensor(after, dtype=f64))
        assert_close(exact.forward(t), torch.tensor(forward, dtype=f64))
        reverse = exact.reverse(t)
        for i in range(len(rows)):
            wanted = [forward[i][j] * p[j] / after[i] if after[i] else 1 / len(rows) for j in range(len(rows))]
            assert_close(reverse[:, i], torch.tensor(wanted, dtype=f64))
        p = after


def test_the_reverse_is_that_of_the_markov_chain():
    process, n = PROCESSES["flips"]
    exact = EnumeratedDiffusion(process, data(process, n))
    for t in range(1, process.steps + 1):
        chain = MarkovChain(exact.forward(t))
        assert_close(exact.reverse(t), chain.reverse(exact.marginal(t - 1)).T)
        assert_close(exact.marginal(t), chain.evolve(exact.marginal(t - 1)))


def test_the_factors_are_the_marginals_of_the_joint(case):
    """p(x_{t−1,i}|x_t) and p(x_{0,i}|x_t), from all paths."""
    process, n, exact = case
    k = process.categories
    rows = words(n, k)
    if len(rows) ** (process.steps + 1) > 20_000:
        process = DiscreteProcess(process.matrices[:3])
        exact = EnumeratedDiffusion(process, exact.data)
    before = torch.zeros(process.steps + 1, len(rows), n, k, dtype=f64)
    clean = torch.zeros_like(before)
    for path, weight in paths(process, n, exact.data):
        for t in range(1, process.steps + 1):
            for i in range(n):
                before[t, path[t], i, rows[path[t - 1]][i]] += weight
                clean[t, path[t], i, rows[path[0]][i]] += weight
    for t in range(1, process.steps + 1):
        reached = exact.marginal(t) > 0
        for got, joint in ((exact.site_reverse(t), before[t]), (exact.site_clean(t), clean[t])):
            assert_close(got[reached], (joint / joint.sum(-1, keepdim=True))[reached])
            assert_close(got.sum(-1), torch.ones(len(rows), n, dtype=f64))
        back = process.reverse(exact.site_clean(t), all_states(n, k), t)
        assert_close(back[reached], exact.site_reverse(t)[reached])


def test_where_the_data_never_lead_each_site_looks_at_itself():
    """Two equal bits under a mask: unequal ones are never reached; in the model they stay, as masks allow no more."""
    process = DiscreteProcess.absorbing([0.5, 0.5], 2)
    p0 = torch.zeros(9, dtype=f64)
    p0[row_numbers(torch.tensor([[0, 0], [1, 1]]), 3)] = torch.tensor([0.25, 0.75], dtype=f64)
    exact = EnumeratedDiffusion(process, p0)
    unequal, half = row_numbers(torch.tensor([[0, 1], [0, 2]]), 3)
    assert exact.marginal(2)[unequal] == 0 < exact.marginal(2)[half]
    assert_close(exact.site_reverse(2)[unequal], torch.eye(3, dtype=f64)[:2])
    assert_close(exact.site_reverse(2)[half][0], torch.eye(3, dtype=f64)[0])


def test_the_bound_by_all_paths():
    """−E[log p_θ(x_0 … x_T) − log q(x_1 … x_T | x_0)], a sum over every path, and each term by itself."""
    process, n = crooked(2, 2, seed=7), 2
    exact = EnumeratedDiffusion(process, data(process, n))
    model = tabulated(lambda x, t: process.reverse(_said(x, t, 2), x, t), all_states(n, 2))
    prior = torch.tensor([0.4, 0.6], dtype=f64)
    terms, factors, rows = bound_terms(exact, model, prior), {t: model(t) for t in (1, 2)}, words(n, 2)
    whole = 0.0
    for path, weight in paths(process, n, exact.data):
        ratio = math.log(math.prod(prior[k] for k in rows[path[2]]))
        for t in (1, 2):
            ratio += math.log(math.prod(factors[t][path[t], i, rows[path[t - 1]][i]] for i in range(n)))
            ratio -= math.log(entry(process.matrices[t - 1].tolist(), rows[path[t]], rows[path[t - 1]]))
        whole -= weight * ratio
    assert_close(terms.sum(), torch.tensor(whole, dtype=f64))
    x0 = torch.tensor(rows).repeat_interleave(4, 0)
    xt = torch.tensor(rows).repeat(4, 1)
    weight = exact.data.repeat_interleave(4) * process.marginal(x0, 2).gather(-1, xt[..., None])[..., 0].prod(-1)
    middle = kl(process.posterior(x0, xt, 2), factors[2][row_numbers(xt)]).sum(-1)
    assert_close(terms[1], (weight * middle).sum())
    end = kl(process.marginal(torch.tensor(rows), 2), prior.expand(4, n, 2)).sum(-1)
    assert_close(terms[2], (exact.data * end).sum())


def _said(x, t, k):
    """What some network might say: depends on all sites and on the step."""
    logits = torch.sin(1.0 + t + x.sum(-1, keepdim=True).to(f64)[..., None] * torch.arange(1, k + 1) + x[..., None])
    return logits.softmax(-1)


def test_with_the_exact_reverse_only_the_end_is_left(case):
    """−E[ELBO] = H(data) + KL(p_T ‖ p(x_T)); with the exact end too, the model is the data."""
    process, n, exact = case
    entropy = torch.special.entr(exact.data).sum()
    end = torch.zeros((), dtype=f64)
    for row, word in enumerate(words(n, process.categories)):
        p = exact.marginal(process.steps)[row]
        end += torch.xlogy(p, p) - torch.xlogy(p, process.prior[list(word)].prod())
    assert_close(bound_terms(exact, exact.reverse).sum(), entropy + end)
    p = exact.marginal(process.steps)
    for t in range(process.steps, 0, -1):
        p = exact.reverse(t) @ p
    assert_close(p, exact.data)


def test_the_model_distribution_by_loops(case):
    process, n, exact = case
    k = process.categories
    rows = words(n, k)
    model = tabulated(lambda x, t: process.reverse(_said(x, t, k), x, t), all_states(n, k))
    p = [math.prod(process.prior[m].item() for m in word) for word in rows]
    for t in range(process.steps, 0, -1):
        table = model(t).tolist()
        p = [
            sum(p[x] * math.prod(table[x][i][m] for i, m in enumerate(word)) for x in range(len(rows))) for word in rows
        ]
    got = model_distribution(process, n, model)
    assert_close(got, torch.tensor(p, dtype=f64))
    gap = bound_terms(exact, model).sum() - torch.special.entr(exact.data).sum()
    reached = exact.data > 0
    assert gap >= (exact.data[reached] * (exact.data[reached] / got[reached]).log()).sum() - 1e-12


def test_matrices_and_factors_are_one_model(case):
    """The factors multiplied out give the same distribution and the same terms as a matrix."""
    process, n, exact = case
    rows = all_states(n, process.categories)
    model = tabulated(lambda x, t: process.reverse(_said(x, t, process.categories), x, t), rows)

    def whole(t):
        return torch.stack([model(t)[:, range(n), word].prod(-1) for word in rows.tolist()])

    assert_close(model_distribution(process, n, whole), model_distribution(process, n, model))
    assert_close(bound_terms(exact, whole), bound_terms(exact, model))


def test_no_product_of_sites_beats_the_exact_factors():
    process, n = PROCESSES["crooked"]
    exact = EnumeratedDiffusion(process, data(process, n))
    best = bound_terms(exact, exact.site_reverse)
    assert bound_terms(exact, exact.reverse).sum() < best.sum()
    for seed in range(5):
        push = 0.1 * torch.randn(3, 9, n, 3, generator=seeded(seed), dtype=f64)
        other = bound_terms(exact, lambda t, push=push: (exact.site_reverse(t).log() + push[t - 1]).softmax(-1))
        assert (other[:-1] > best[:-1]).all()
        assert_close(other[-1], best[-1])


def test_sixteen_bits():
    """2^16 states: one step in about a second; for independent sites all is known in closed form."""
    process, n = DiscreteProcess.flips([0.1, 0.2]), 16
    on = torch.linspace(0.1, 0.9, n, dtype=f64)
    sites = torch.stack([1 - on, on], -1)
    p0 = torch.ones(1, dtype=f64)
    for site in sites:
        p0 = (site[:, None] * p0).flatten()
    exact = EnumeratedDiffusion(process, p0)
    start = time.perf_counter()
    p = model_distribution(process, n, exact.site_reverse)
    assert time.perf_counter() - start < 60  # a product over 2^32 pairs of states would take hours
    site = torch.full((n, 2), 0.5, dtype=f64)
    for t in (2, 1):  # each site by itself, by Bayes
        q = sites @ process.cumulative[t - 1].mT
        joint = process.matrices[t - 1] * q[:, None, :]
        site = (joint / joint.sum(-1, keepdim=True) * site[..., None]).sum(1)
    numbers = torch.tensor([0, 1, 2, 4097, 65535, 43690])
    word = all_states(n)[numbers]
    wanted = torch.where(word == 1, site[:, 1], site[:, 0]).prod(-1)
    assert_close(p[numbers], wanted, rtol=1e-11, atol=0)
    assert_close(p.sum(), torch.ones((), dtype=f64))


# --- a network -------------------------------------------------------------------------------------------------------


class _Flat(torch.nn.Module):
    """An MLP on the one-hot sites and the level."""

    def __init__(self, n, k, seed):
        super().__init__()
        self.net = mlp([n * k + 1, 16, n * k], seeded(seed))

    def forward(self, x, level):
        return self.net(torch.cat([x.flatten(1), level[:, None] / 10], 1))


@pytest.mark.parametrize("bound", [1.0, 0.0, 0.3])
def test_the_loss_estimates_the_bound(bound):
    """40,000 draws of t and x_t: within five standard errors of the exact sum, for each mixture of the two losses."""
    process, n = DiscreteProcess.uniform([0.2, 0.3, 0.6], 3), 2
    model = DiscreteDenoiser(_Flat(n, 3, 8), process).double()
    exact = EnumeratedDiffusion(process, data(process, n))
    rows, rng, count = all_states(n, 3), seeded(9), 4_000
    with torch.no_grad():
        terms = bound_terms(exact, tabulated(model.reverse, rows))[:-1]
        nats = torch.zeros((), dtype=f64)
        for t in (1, 2, 3):
            said = exact.site_clean(t) * model(rows, t).log()
            nats -= (exact.marginal(t) * said.sum((1, 2))).sum() / 3
        wanted = bound * terms.sum() + (1 - bound) * nats
        x0 = rows[torch.multinomial(exact.data, 10 * count, replacement=True, generator=rng)]
        draws = torch.stack([model.loss(part, rng, bound) for part in x0.split(1000)])
    assert (draws.mean() - wanted).abs() < 5 * draws.std() / len(draws) ** 0.5


def test_training_finds_the_exact_factors():
    """Two bits that always agree: after 400 steps the bound is within 0.05 nats of the best that factors can have."""
    process = DiscreteProcess.flips([0.1, 0.2, 0.3])
    p0 = torch.tensor([0.7, 0.0, 0.0, 0.3], dtype=f64)
    exact = EnumeratedDiffusion(process, p0)
    model = DiscreteDenoiser(_Flat(2, 2, 10), process)
    optimizer, rng = torch.optim.Adam(model.parameters(), 0.02), seeded(11)
    x0 = all_states(2)[torch.multinomial(p0, 512, replacement=True, generator=rng)]
    for _ in range(400):
        optimizer.zero_grad()
        model.loss(x0, rng).backward()
        optimizer.step()
    with torch.no_grad():
        got = bound_terms(exact, tabulated(model.reverse, all_states(2))).sum()
    best = bound_terms(exact, exact.site_reverse).sum()
    assert best <= got < best + 0.05


def test_draws_follow_the_model_distribution():
    """40,000 ancestral draws: each of nine frequencies within five standard errors."""
    process, n, count = crooked(), 2, 40_000
    exact = EnumeratedDiffusion(process, data(process, n))

    def rule(x, t):
        return exact.site_reverse(t)[row_numbers(x, 3)]

    p = model_distribution(process, n, tabulated(rule, all_states(n, 3)))
    draws = sample_sites(process, rule, (count, n), seeded(12))
    seen = torch.bincount(row_numbers(draws, 3), minlength=9) / count
    assert ((seen - p).abs() < 5 * (p * (1 - p) / count).sqrt()).all()


# --- at the door -----------------------------------------------------------------------------------------------------

GOOD = DiscreteProcess.flips([0.1, 0.2])
X = torch.tensor([[0, 1]])
UNIFORM = torch.full((4,), 0.25, dtype=f64)
BAD = {
    "column 0 of matrices[0] sums to 0.5": lambda: DiscreteProcess(torch.tensor([[[0.2, 0.3], [0.3, 0.7]]], dtype=f64)),
    "its rows sum to 1, so pass matrices.mT": lambda: DiscreteProcess(
        torch.tensor([[[0.2, 0.8], [0.3, 0.7]]], dtype=f64)
    ),
    "a probability is not negative": lambda: DiscreteProcess(torch.tensor([[[1.2, 0.0], [-0.2, 1.0]]], dtype=f64)),
    "give one square matrix a step": lambda: DiscreteProcess(torch.ones(2, 2, dtype=f64)),
    "to(torch.float64)": lambda: DiscreteProcess(torch.eye(2)[None]),
    "values are not finite": lambda: DiscreteProcess(torch.full((1, 2, 2), math.nan, dtype=f64)),
    "the rate of step 2 is 1.5": lambda: DiscreteProcess.uniform([0.1, 1.5], 3),
    "the rate of step 1 is nan": lambda: DiscreteProcess.flips([math.nan]),
    "give one for each step": lambda: DiscreteProcess.absorbing([], 3),
    "fewer than two": lambda: DiscreteProcess.uniform([0.1], 1),
    "x0 has categories from 0 to 2": lambda: GOOD.marginal(torch.tensor([[0, 2]]), 1),
    # past the annotations, which tests check and users do not
    "pass x0.long()": lambda: inspect.unwrap(DiscreteProcess.marginal)(GOOD, torch.tensor([[True, False]]), 1),
    "x0 has shape (2,)": lambda: inspect.unwrap(DiscreteProcess.marginal)(GOOD, torch.tensor([0, 1]), 1),
    "the steps are 0 … 2": lambda: GOOD.marginal(X, 3),
    "the steps are 1 … 2": lambda: GOOD.posterior(X, X, 0),
    "one whole step, or one for each row": lambda: GOOD.marginal(X, torch.tensor([1, 2])),
    "3^30 states": lambda: all_states(30, 3),
    "give float64 probabilities of all 2^n states": lambda: EnumeratedDiffusion(GOOD, UNIFORM[:3] * 4 / 3),
    "data sums to 2": lambda: EnumeratedDiffusion(GOOD, UNIFORM * 2),
    "the steps are 1 … 2 ": lambda: EnumeratedDiffusion(GOOD, UNIFORM).site_reverse(3),
    "use the site_ methods": lambda: EnumeratedDiffusion(GOOD, torch.full((2**13,), 2**-13, dtype=f64)).forward(1),
    "give (4, 4) or (4, 2, 2)": lambda: model_distribution(GOOD, 2, lambda t: UNIFORM),
    "the model at t = 2 sums to 0.5": lambda: model_distribution(GOOD, 2, lambda t: torch.full((4, 2, 2), 0.25)),
    "K ≥ 2 categories": lambda: DiscreteProcess(torch.ones(3, 1, 1, dtype=f64)),
    "prior sums to 2": lambda: model_distribution(GOOD, 2, lambda t: torch.eye(4, dtype=f64), torch.ones(2, dtype=f64)),
    "prior sums to 3": lambda: bound_terms(
        EnumeratedDiffusion(GOOD, UNIFORM),
        lambda t: torch.eye(4, dtype=f64) / 2 + 0.125,
        torch.ones(2, dtype=f64) * 1.5,
    ),
    "predicted has shape (1, 1, 2)": lambda: inspect.unwrap(DiscreteProcess.reverse)(
        GOOD, UNIFORM[None, None, :2], X, 1
    ),
    "the steps are 0 … 2  ": lambda: EnumeratedDiffusion(GOOD, UNIFORM).posterior_entropy(0),
    "xt has categories from 0 to 2": lambda: DiscreteDenoiser(_Three(), GOOD)(torch.tensor([[0, 2]]), 1),
    "2 logits for each site": lambda: DiscreteDenoiser(_Three(), GOOD)(X, 1),
}


class _Three(torch.nn.Module):
    def forward(self, x, level):
        return torch.zeros(len(x), 3)


@pytest.mark.parametrize("words_of_error", BAD)
def test_errors_at_the_door(words_of_error):
    with pytest.raises(ValueError, match=re.escape(words_of_error.strip())):
        BAD[words_of_error]()
