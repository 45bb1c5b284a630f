"""The equations of book/vae/latent-variables-and-the-elbo.md, held by sums over exact fractions and by quadrature."""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import sympy
import torch
from harness import assert_at_most, assert_close, assert_zero, equation
from scipy import integrate, special, stats

from lecturecode.vae import LatentTable

PRIOR = [Fraction(1, 2), Fraction(3, 10), Fraction(1, 5)]
RED = [Fraction(1, 5), Fraction(1, 2), Fraction(4, 5)]
SHAPES, OUTCOMES = range(3), range(4)
LIKELIHOOD = [[math.comb(3, x) * r**x * (1 - r) ** (3 - x) for x in OUTCOMES] for r in RED]
JOINT = [[PRIOR[h] * LIKELIHOOD[h][x] for x in OUTCOMES] for h in SHAPES]
EVIDENCE = [sum(JOINT[h][x] for h in SHAPES) for x in OUTCOMES]
POSTERIOR = [[JOINT[h][x] / EVIDENCE[x] for h in SHAPES] for x in OUTCOMES]
DATA = [Fraction(3, 10), Fraction(7, 25), Fraction(13, 50), Fraction(4, 25)]  # relative frequencies, not the model's
Q = [
    [Fraction(1, 5), Fraction(3, 10), Fraction(1, 2)],
    [Fraction(7, 10), Fraction(1, 10), Fraction(1, 5)],
    [Fraction(1, 3), Fraction(1, 3), Fraction(1, 3)],
    [Fraction(1, 20), Fraction(3, 20), Fraction(4, 5)],
]


def tensor(numbers) -> torch.Tensor:
    """Nested fractions or floats as float64."""
    return torch.tensor(np.array(numbers, dtype=float).tolist(), dtype=torch.float64)


def model() -> LatentTable:
    return LatentTable(tensor(PRIOR), tensor(LIKELIHOOD))


def log(number) -> float:
    return math.log(number)


def kl(q, p) -> float:
    """Σ q log(q/p) term by term, zero terms left out."""
    return math.fsum(float(a) * log(a / b) for a, b in zip(q, p, strict=True) if a)


def elbo(q, x, joint=JOINT) -> float:
    """Σ q log(p(x,h)/q), from its definition."""
    return math.fsum(float(q[h]) * log(joint[h][x] / q[h]) for h in SHAPES if q[h])


def photons(prior, red):
    """The joint table p(x,h) of three photons, in whatever numbers are given."""
    return [
        [p * math.comb(3, x) * r**x * (1 - r) ** (3 - x) for x in OUTCOMES] for p, r in zip(prior, red, strict=True)
    ]


def log_evidence(joint, x) -> float:
    return log(sum(row[x] for row in joint))


def posterior(joint, x):
    total = sum(row[x] for row in joint)
    return [row[x] / total for row in joint]


def mean_log_evidence(joint, data=DATA) -> float:
    return math.fsum(float(data[x]) * log_evidence(joint, x) for x in OUTCOMES)


def mean_elbo(qs, joint, data=DATA) -> float:
    return math.fsum(float(data[x]) * elbo(qs[x], x, joint) for x in OUTCOMES)


def m_step(qs, data=DATA):
    """The new prior and red probabilities of three photons."""
    share = [sum(data[x] * qs[x][h] for x in OUTCOMES) for h in SHAPES]
    red = [sum(data[x] * qs[x][h] * x for x in OUTCOMES) / (3 * share[h]) for h in SHAPES]
    return share, red


@equation("marginal-likelihood")
def test_evidence_is_the_sum_over_the_latent_variable():
    """The table's log p(x) against exact fractions; the integral, by quadrature, against N(x; 0, a² + s²)."""
    assert_close(model().log_prob(), [log(Fraction(n, 10_000)) for n in (2951, 3237, 2373, 1439)])
    assert_close(model().joint().sum(0), tensor([sum(map(Fraction, column)) for column in zip(*JOINT, strict=True)]))
    a, s, x = 0.7, 0.4, 0.9
    integral, _ = integrate.quad(
        lambda h: stats.norm.pdf(x, a * h, s) * stats.norm.pdf(h), -12, 12, epsabs=1e-14, epsrel=1e-13
    )
    assert_close(integral, stats.norm.pdf(x, 0, math.hypot(a, s)))


@equation("bayes-evidence")
def test_joint_over_posterior_is_the_evidence_for_every_latent_value():
    """The library's joint and posterior, divided, against the exact sums over h."""
    ratio = model().joint() / model().posterior().mT
    for h in SHAPES:
        assert_close(ratio[h], tensor(EVIDENCE))


@equation("latent-configurations")
def test_number_of_latent_configurations():
    """k^m against a count of the product of m sets of k values."""
    for k, m in ((2, 1), (2, 10), (3, 7), (5, 4)):
        assert_close(sum(1 for _ in itertools.product(range(k), repeat=m)), k**m)


@equation("prior-sampling-variance")
def test_variance_of_sampling_from_the_prior():
    """The variance of the mean of two draws, over all pairs of draws, against χ²/2; two units against (1 + χ²)²."""
    for x in OUTCOMES:
        chi = sum(POSTERIOR[x][h] ** 2 / PRIOR[h] for h in SHAPES) - 1
        pairs = [(PRIOR[g] * PRIOR[h], (LIKELIHOOD[g][x] + LIKELIHOOD[h][x]) / 2) for g in SHAPES for h in SHAPES]
        mean = sum(weight * value for weight, value in pairs)
        variance = sum(weight * (value - mean) ** 2 for weight, value in pairs)
        assert_close(float(variance / EVIDENCE[x] ** 2), float(chi / 2))
        joint_two = sum(
            (POSTERIOR[x][g] * POSTERIOR[x][h]) ** 2 / (PRIOR[g] * PRIOR[h]) for g in SHAPES for h in SHAPES
        )
        assert_close(float(joint_two), float((1 + chi) ** 2))


@equation("evidence-as-expectation")
def test_evidence_is_its_own_expectation():
    """Σ_h q log p(x), summed over h, against log p(x)."""
    for x in OUTCOMES:
        assert_close(float(sum(Q[x])), 1.0)
        assert_close(math.fsum(float(w) * log(EVIDENCE[x]) for w in Q[x]), log(EVIDENCE[x]))


@equation("bayes-inside")
def test_bayes_inside_the_expectation():
    """E_q of the library's log joint/posterior against exact log p(x); the integrand is the same for every h."""
    joint, post = model().joint().mT, model().posterior()
    integrand = (joint / post).log()
    assert_close((tensor(Q) * integrand).sum(-1), [log(p) for p in EVIDENCE])
    assert_close(integrand.max(-1).values - integrand.min(-1).values, torch.zeros(4))


@equation("times-one")
def test_multiplying_by_q_over_q_changes_nothing():
    """Both forms of line 3, term by term, against log p(x)."""
    for x in OUTCOMES:
        one = [log(JOINT[h][x] / POSTERIOR[x][h] * Q[x][h] / Q[x][h]) for h in SHAPES]
        two = [log(JOINT[h][x] / Q[x][h]) + log(Q[x][h] / POSTERIOR[x][h]) for h in SHAPES]
        assert_close(math.fsum(float(q) * v for q, v in zip(Q[x], one, strict=True)), log(EVIDENCE[x]))
        assert_close(math.fsum(float(q) * v for q, v in zip(Q[x], two, strict=True)), log(EVIDENCE[x]))


@equation("elbo-plus-kl")
def test_evidence_is_elbo_plus_divergence():
    """The library's ELBO plus a plain sum for the divergence, and the reverse, against exact log p(x)."""
    library = model().elbo(tensor(Q)).value
    for x in OUTCOMES:
        assert_close(float(library[x]) + kl(Q[x], POSTERIOR[x]), log(EVIDENCE[x]))
        assert_close(elbo(Q[x], x) + kl(Q[x], POSTERIOR[x]), log(EVIDENCE[x]))


@equation("posterior-gap")
def test_divergence_to_the_posterior_is_never_negative():
    """0 ≤ KL over a grid of every q with twelfths as weights; equal to zero at q = p(h|x), and only there."""
    grid = [[Fraction(a, 12), Fraction(b, 12), Fraction(12 - a - b, 12)] for a in range(13) for b in range(13 - a)]
    for x in OUTCOMES:
        away = [kl(q, POSTERIOR[x]) for q in grid]
        assert min(away) > 1e-6  # no q of the grid is the posterior
        assert_at_most(0.0, [*away, kl(POSTERIOR[x], POSTERIOR[x])])


@equation("elbo-definition")
def test_elbo_is_below_the_evidence():
    """The library's ELBO against its defining sum; at most log p(x), equal at the posterior."""
    for table in (Q, [PRIOR] * 4, POSTERIOR):
        value = model().elbo(tensor(table)).value
        assert_close(value, [elbo(table[x], x) for x in OUTCOMES])
    bounds = [elbo(q, x) for x in OUTCOMES for q in (Q[x], PRIOR, POSTERIOR[x])]
    assert_at_most(bounds, [log(EVIDENCE[x]) for x in OUTCOMES for _ in range(3)])


@equation("split-counterexample")
def test_positive_everywhere_is_not_enough_for_a_finite_divergence():
    """The partial divergence by its definition against harmonic numbers and ζ′(2); its second part has a limit."""
    for cutoff in (10, 1000, 20_000):
        weights = [6 / (math.pi * h) ** 2 for h in range(1, cutoff + 1)]
        partial = math.fsum(q * (log(q) + h * math.log(2)) for h, q in enumerate(weights, 1))
        squares = mpmath.zeta(2) - mpmath.zeta(2, cutoff + 1)
        logs = -mpmath.zeta(2, 1, 1) + mpmath.zeta(2, cutoff + 1, 1)  # Σ log h / h², by Hurwitz' ζ′
        scale = 6 / mpmath.pi**2
        closed = scale * mpmath.log(2) * mpmath.harmonic(cutoff) + scale * (mpmath.log(scale) * squares - 2 * logs)
        assert_close(partial, float(closed), tol=1e-11)  # 20,000 terms of rounding
    limit = scale * (mpmath.log(scale) * mpmath.zeta(2) + 2 * mpmath.zeta(2, 1, 1))
    rest = partial - scale * mpmath.log(2) * mpmath.harmonic(cutoff)
    assert abs(rest - limit) < 1e-3  # the second sum converges; the harmonic series has no limit


@equation("board-form")
def test_the_form_with_the_likelihood_alone_misses_the_prior():
    """With p(x|h) for p(x,h): the ELBO less E_q[log p(h)], above log p(x), with maximum log Σ_h p(x|h)."""
    for x in OUTCOMES:
        row = [LIKELIHOOD[h][x] for h in SHAPES]
        total = sum(row)
        for q in (Q[x], POSTERIOR[x], [value / total for value in row]):
            board = math.fsum(float(q[h]) * log(row[h] / q[h]) for h in SHAPES)
            prior = math.fsum(float(q[h]) * log(PRIOR[h]) for h in SHAPES)
            assert_close(board, elbo(q, x) - prior)
        board_at = [-kl(q, row) for q in (Q[x], POSTERIOR[x], [value / total for value in row])]
        assert_at_most(board_at, log(total))
        assert board_at[1] > log(EVIDENCE[x]) + 0.1


@equation("elbo-by-jensen")
def test_two_inequalities_of_the_second_route():
    """The chain for a q with a hole, a full q and the posterior: each inequality, tight where the text says."""
    for x in OUTCOMES:
        qs = [[Fraction(0), Fraction(1, 2), Fraction(1, 2)], Q[x], POSTERIOR[x]]
        visited = [sum(JOINT[h][x] for h in SHAPES if q[h]) for q in qs]
        means = [sum(q[h] * (JOINT[h][x] / q[h]) for h in SHAPES if q[h]) for q in qs]
        assert_close([float(v) for v in visited], [float(m) for m in means])
        assert_at_most([log(v) for v in visited], log(EVIDENCE[x]))
        assert_at_most([elbo(q, x) for q in qs], [log(v) for v in visited])


@equation("jensen-losses")
def test_what_each_inequality_loses():
    """log p(x) − ELBO against the weight that is not visited and the divergence on the rest, for every support."""
    for x in OUTCOMES:
        for support in ((0,), (1, 2), (0, 2), (0, 1, 2)):
            q = [Fraction(h + 2, sum(g + 2 for g in support)) if h in support else Fraction(0) for h in SHAPES]
            weight = sum(POSTERIOR[x][h] for h in support)
            given = [POSTERIOR[x][h] / weight if h in support else Fraction(1) for h in SHAPES]
            assert_close(log(EVIDENCE[x]) - elbo(q, x), -log(weight) + kl(q, given))


@equation("elbo-discrete-sign")
def test_for_discrete_x_the_elbo_is_not_positive():
    """ELBO ≤ log p(x) ≤ 0 on the tables, tight at the posterior and for an x that is certain."""
    certain = [[Fraction(1, 2)], [Fraction(3, 10)], [Fraction(1, 5)]]  # p(x = 0) = 1, and the posterior is the prior
    values = [elbo(Q[x], x) for x in OUTCOMES] + [elbo(POSTERIOR[0], 0), elbo(PRIOR, 0, certain)]
    evidence = [log(p) for p in EVIDENCE] + [log(EVIDENCE[0]), log_evidence(certain, 0)]
    assert_at_most(values, evidence)
    assert_at_most(evidence, 0.0)


@equation("elbo-density-example")
def test_the_elbo_of_a_density_can_be_positive():
    """The ELBO by quadrature, with q = N(0, ½), against −½ log 4πa²; its sign changes at a = 1/(2√π)."""
    width = math.sqrt(0.5)
    for a in (0.05, 0.1, 0.3, 1.0):

        def integrand(h, a=a):
            log_ratio = stats.norm.logpdf(0, a * h, a) + stats.norm.logpdf(h) - stats.norm.logpdf(h, 0, width)
            return stats.norm.pdf(h, 0, width) * log_ratio

        value, _ = integrate.quad(integrand, -12, 12, epsabs=1e-14, epsrel=1e-13)
        assert_close(value, -0.5 * math.log(4 * math.pi * a**2))
        assert_close(stats.norm.logpdf(0, 0, math.sqrt(2) * a), -0.5 * math.log(4 * math.pi * a**2))
        assert (value > 0) == (a < 1 / (2 * math.sqrt(math.pi)))
    assert_close(-0.5 * math.log(4 * math.pi * (1 / (2 * math.sqrt(math.pi))) ** 2), 0.0)


@equation("elbo-units")
def test_a_change_of_units_moves_the_elbo_and_not_the_gap():
    """Two numbers x given h, a Gaussian q that is not the posterior: ELBO and log p(x) by quadrature, in both units."""
    a, s, x, c = np.array([0.5, -0.8]), 0.6, np.array([0.4, 0.1]), -3.0

    def both(scale):
        def log_joint(h):
            return stats.norm.logpdf(scale * x, scale * a * h, abs(scale) * s).sum() + stats.norm.logpdf(h)

        def integrand(h):
            return stats.norm.pdf(h, 0.3, 0.5) * (log_joint(h) - stats.norm.logpdf(h, 0.3, 0.5))

        bound = integrate.quad(integrand, -8, 8, epsabs=1e-14, limit=200)[0]
        return bound, math.log(integrate.quad(lambda h: math.exp(log_joint(h)), -12, 12, epsabs=1e-15, limit=200)[0])

    (bound, evidence), (bound_c, evidence_c) = both(1.0), both(c)
    assert_close(bound_c, bound - 2 * math.log(abs(c)))
    assert_close(evidence_c - bound_c, evidence - bound)


@equation("joint-factorised")
def test_joint_is_likelihood_times_prior():
    """The library's joint against exact products; it sums to one."""
    assert_close(model().joint(), tensor([[PRIOR[h] * LIKELIHOOD[h][x] for x in OUTCOMES] for h in SHAPES]))
    assert_close(model().joint().sum(), 1.0)


@equation("elbo-split-joint")
def test_the_expectation_of_the_product_splits():
    """E_q of the log of the product against the sum of the two means, plain sums on both sides."""
    for x in OUTCOMES:
        whole = math.fsum(float(Q[x][h]) * log(LIKELIHOOD[h][x] * PRIOR[h] / Q[x][h]) for h in SHAPES)
        first = math.fsum(float(Q[x][h]) * log(LIKELIHOOD[h][x]) for h in SHAPES)
        second = math.fsum(float(Q[x][h]) * log(PRIOR[h] / Q[x][h]) for h in SHAPES)
        assert_close(whole, first + second)


@equation("elbo-two-terms")
def test_elbo_is_reconstruction_less_prior_matching():
    """The library's two terms against plain sums, and their difference against the ELBO's definition."""
    bound = model().elbo(tensor(Q))
    assert_close(
        bound.reconstruction, [math.fsum(float(Q[x][h]) * log(LIKELIHOOD[h][x]) for h in SHAPES) for x in OUTCOMES]
    )
    assert_close(bound.kl, [kl(Q[x], PRIOR) for x in OUTCOMES])
    assert_close(bound.reconstruction - bound.kl, [elbo(Q[x], x) for x in OUTCOMES])


@equation("gap-quadratic")
def test_the_gap_is_of_second_order_at_the_posterior():
    """Derivatives 0, 1, 2 of KL(q_s‖posterior) at s = 1, by SymPy on exact fractions."""
    s = sympy.Symbol("s")
    for x in OUTCOMES:
        prior, post = ([sympy.Rational(p.numerator, p.denominator) for p in row] for row in (PRIOR, POSTERIOR[x]))
        path = [(1 - s) * p + s * r for p, r in zip(prior, post, strict=True)]
        gap = sympy.Add(*(q * sympy.log(q / r) for q, r in zip(path, post, strict=True)))
        chi = sum((p - r) ** 2 / r for p, r in zip(prior, post, strict=True))
        assert_zero([gap.subs(s, 1), gap.diff(s).subs(s, 1), gap.diff(s, 2).subs(s, 1) - chi])
        assert_close(float(gap.subs(s, 0)), log(EVIDENCE[x]) - elbo(PRIOR, x))


@equation("elbo-free-energy")
def test_minus_the_elbo_is_a_free_energy():
    """SciPy's entropy and a plain mean energy against minus the library's ELBO; never below −log Z, equal once."""
    energy = [[-log(JOINT[h][x]) for h in SHAPES] for x in OUTCOMES]
    for table in (Q, POSTERIOR):
        free = [
            math.fsum(float(table[x][h]) * energy[x][h] for h in SHAPES)
            - float(stats.entropy(np.array(table[x], float)))
            for x in OUTCOMES
        ]
        assert_close(free, -model().elbo(tensor(table)).value)
    log_z = [float(special.logsumexp([-e for e in row])) for row in energy]
    assert_close(log_z, [log(p) for p in EVIDENCE])
    assert_at_most([-z for z in log_z], free)  # at the posterior: equal


def _logits():
    """The tables as functions of log p(h) and of the log-odds of a red photon."""
    prior, red = tensor(PRIOR).log().requires_grad_(), torch.logit(tensor(RED)).requires_grad_()
    ways, x = tensor([1, 3, 3, 1]), torch.arange(4, dtype=torch.float64)
    rho = red.sigmoid()[:, None]
    return prior, red, LatentTable(prior.softmax(0), ways * rho**x * (1 - rho) ** (3 - x))


@equation("fisher-identity")
def test_gradient_of_the_evidence_is_the_posterior_mean_of_the_score():
    """Autograd through log p(x), and through the ELBO at a fixed posterior, against exact finite sums."""
    prior, red, table = _logits()
    fixed = table.posterior().detach()
    for x in OUTCOMES:
        by_prior = [float(POSTERIOR[x][j] - PRIOR[j]) for j in SHAPES]  # Σ_h p(h|x) (δ_hj − p(j))
        by_red = [float(POSTERIOR[x][j] * (x - 3 * RED[j])) for j in SHAPES]
        for value in (table.log_prob()[x], table.elbo(fixed).value[x]):
            left, right = torch.autograd.grad(value, (prior, red), retain_graph=True)
            assert_close(left, by_prior)
            assert_close(right, by_red)


@equation("gradient-gap")
def test_gradient_of_the_bound_misses_that_of_the_gap():
    """Autograd of the library's ELBO at fixed q against exact scores averaged over q, and over the posterior."""
    _, red, table = _logits()
    for x in OUTCOMES:
        (slope,) = torch.autograd.grad(table.elbo(tensor(Q)).value[x], red, retain_graph=True)
        post = table.joint()[:, x] / table.joint()[:, x].sum()
        gap = (tensor(Q[x]) * (tensor(Q[x]) / post).log()).sum()
        (gap_slope,) = torch.autograd.grad(gap, red, retain_graph=True)
        evidence_slope = tensor([POSTERIOR[x][j] * (x - 3 * RED[j]) for j in SHAPES])
        assert_close(slope, evidence_slope - gap_slope)
        assert_close(slope, [float(Q[x][j] * (x - 3 * RED[j])) for j in SHAPES])


@equation("data-objective")
def test_objective_of_a_data_set():
    """Σ_i of the library's two terms over a data set against plain sums; at most log P(X), equal at the posteriors."""
    data = [0, 3, 1, 1, 2, 0, 0, 3]
    log_p_x = math.fsum(log(EVIDENCE[x]) for x in data)
    totals = []
    for table in (Q, POSTERIOR):
        bound = model().elbo(tensor(table))
        totals.append(float((bound.reconstruction - bound.kl)[data].sum()))
        assert_close(totals[-1], math.fsum(elbo(table[x], x) for x in data))
    assert_at_most(totals, log_p_x)
    probability = math.prod(EVIDENCE[x] for x in data)  # independent data: the product, in exact fractions
    assert_close(log_p_x, log(probability))
    logits = tensor(POSTERIOR).log().requires_grad_()  # at fixed θ the gradient in φ vanishes at the posterior
    best = model().elbo(logits.softmax(-1))
    (slope,) = torch.autograd.grad((best.reconstruction - best.kl)[data].sum(), logits)
    assert_close(slope, torch.zeros(4, 3))


@equation("em-e-step")
def test_the_posterior_is_the_best_q():
    """F(q, θ) is at most the mean log-likelihood for several q, and equal to it at the library's posterior."""
    joint = photons([0.2, 0.5, 0.3], [0.3, 0.55, 0.7])
    table = LatentTable(tensor([0.2, 0.5, 0.3]), tensor(joint) / tensor([0.2, 0.5, 0.3])[:, None])
    library = table.posterior()
    assert_close(library, tensor([posterior(joint, x) for x in OUTCOMES]))
    values = [mean_elbo(qs, joint) for qs in (Q, [PRIOR] * 4, POSTERIOR, library.tolist())]
    assert_at_most(values, mean_log_evidence(joint))
    assert_close(values[-1], mean_log_evidence(joint))


@equation("em-lagrangian")
def test_the_lagrangian_is_stationary_at_the_weighted_counts():
    """SymPy differentiates Λ with λ = 1 and λ_h = Σ_x d q; all derivatives vanish at the M-step's tables."""
    d = [sympy.Rational(p.numerator, p.denominator) for p in DATA]
    q = [[sympy.Rational(p.numerator, p.denominator) for p in row] for row in Q]
    ph = sympy.symbols("p0:3", positive=True)
    px = [sympy.symbols(f"x{h}_0:4", positive=True) for h in SHAPES]
    lam, lam_h = sympy.Symbol("lam"), sympy.symbols("lam0:3")
    multiplied = sum(d[x] * q[x][h] * (sympy.log(ph[h]) + sympy.log(px[h][x])) for x in OUTCOMES for h in SHAPES)
    multiplied += lam * (1 - sum(ph)) + sum(lam_h[h] * (1 - sum(px[h])) for h in SHAPES)
    share = [sum(d[x] * q[x][h] for x in OUTCOMES) for h in SHAPES]
    there = [(lam, 1), *zip(ph, share, strict=True), *zip(lam_h, share, strict=True)]
    there += [(px[h][x], d[x] * q[x][h] / share[h]) for h in SHAPES for x in OUTCOMES]
    unknowns = [lam, *lam_h, *ph, *itertools.chain(*px)]
    assert_zero([sympy.diff(multiplied, unknown).subs(there) for unknown in unknowns])


@equation("em-m-step")
def test_the_m_step_counts_with_q_as_weights():
    """The library's EM step against exact weighted counts; no other tables have a larger F, and free tables fit d."""
    step = model().em(tensor(DATA))
    share = [sum(DATA[x] * POSTERIOR[x][h] for x in OUTCOMES) for h in SHAPES]
    rows = [[DATA[x] * POSTERIOR[x][h] / share[h] for x in OUTCOMES] for h in SHAPES]
    assert_close(step.prior, tensor(share))
    assert_close(step.likelihood, tensor(rows))
    assert_close(step.log_prob().exp(), tensor(DATA))
    joint = [[share[h] * rows[h][x] for x in OUTCOMES] for h in SHAPES]
    others = [JOINT, photons([0.2, 0.5, 0.3], [0.3, 0.55, 0.7]), photons(*m_step(POSTERIOR)), joint]
    assert_at_most([mean_elbo(POSTERIOR, other) for other in others], mean_elbo(POSTERIOR, joint))


@equation("em-photons")
def test_the_m_step_of_three_photons():
    """The derivative of the mean ELBO in ρ_h, by autograd, vanishes at the weighted share; no other ρ_h is better."""
    share, red = m_step(Q)
    rho = tensor(red).requires_grad_()
    x = torch.arange(4, dtype=torch.float64)
    table = tensor([1, 3, 3, 1]) * rho[:, None] ** x * (1 - rho[:, None]) ** (3 - x)
    value = (tensor(DATA) @ LatentTable(tensor(share), table).elbo(tensor(Q)).value).sum()
    assert_close(torch.autograd.grad(value, rho)[0], torch.zeros(3))
    shifted = [photons(share, [r + e for r in red]) for e in (Fraction(0), Fraction(1, 50), Fraction(-1, 50))]
    assert_at_most([mean_elbo(Q, joint) for joint in shifted], mean_elbo(Q, shifted[0]))


@equation("em-increase")
def test_both_steps_of_em_raise_the_likelihood():
    """Twelve rounds in plain floats: the gain is the sum of both brackets, each ≥ 0, and zero at a fixed point."""
    prior, red = [1 / 3] * 3, [0.4, 0.5, 0.6]
    gains_m, gains_e = [], []
    for data in [DATA] * 12 + [EVIDENCE]:
        if data is EVIDENCE:  # the model's own p(x) as data: its tables are a fixed point
            prior, red = PRIOR, RED
        joint = photons(prior, red)
        qs = [posterior(joint, x) for x in OUTCOMES]
        prior, red = m_step(qs, data)
        after = photons(prior, red)
        gains_m.append(mean_elbo(qs, after, data) - mean_elbo(qs, joint, data))
        gains_e.append(math.fsum(float(data[x]) * kl(qs[x], posterior(after, x)) for x in OUTCOMES))
        total = mean_log_evidence(after, data) - mean_log_evidence(joint, data)
        assert_close(total, gains_m[-1] + gains_e[-1])
    assert min(gains_m[:12]) > 0
    assert min(gains_e[:12]) > 0
    assert_at_most(0.0, gains_m)
    assert_at_most(0.0, gains_e)


@equation("linear-encoder")
def test_the_posterior_of_the_photons_is_a_softmax_of_a_linear_function():
    """SciPy's softmax of intercept and slope against the exact posterior."""
    for x in OUTCOMES:
        logits = [log(PRIOR[h]) + 3 * log(1 - RED[h]) + x * log(RED[h] / (1 - RED[h])) for h in SHAPES]
        assert_close(torch.from_numpy(special.softmax(np.array(logits))), tensor(POSTERIOR[x]))


@equation("shared-q")
def test_the_price_of_one_q_for_all():
    """The mean gap of several shared q against KL(q‖g/G) − log G; smallest at g/G."""
    g = [math.exp(math.fsum(float(EVIDENCE[x]) * log(POSTERIOR[x][h]) for x in OUTCOMES)) for h in SHAPES]
    total = math.fsum(g)
    best = [value / total for value in g]
    gaps = []
    for q in (Q[0], PRIOR, best):
        gaps.append(math.fsum(float(EVIDENCE[x]) * kl(q, [float(p) for p in POSTERIOR[x]]) for x in OUTCOMES))
        assert_close(gaps[-1], kl([float(w) for w in q], best) - log(total))
    assert_at_most(-log(total), gaps)


@equation("free-energy-at-beta")
def test_the_free_energy_at_another_temperature():
    """U − S/β against a divergence to the tempered joint, for three β; smallest at the tempered joint."""
    for beta in (0.5, 1.0, 2.0):
        for x in OUTCOMES:
            powers = [float(JOINT[h][x]) ** beta for h in SHAPES]
            z = math.fsum(powers)
            tempered = [value / z for value in powers]
            free = []
            for q in ([float(w) for w in Q[x]], tempered):
                energy = -math.fsum(q[h] * log(JOINT[h][x]) for h in SHAPES)
                free.append(energy - float(stats.entropy(q)) / beta)
                assert_close(free[-1], (kl(q, tempered) - log(z)) / beta)
            assert_at_most(-log(z) / beta, free)
