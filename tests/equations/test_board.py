"""The lecture's board, row by row: where it is loose or wrong, the wrong form fails here and the right one holds.

Everything is a finite sum over small tables, a Gauss–Hermite rule that is exact for the polynomials it meets, or plain
linear algebra in float64; nothing is imported from the package, so that these tests judge the book and not its code.
"""

import itertools
import math

import numpy as np
import pytest

RNG = np.random.Generator(np.random.PCG64(24042025))
NEAR: dict = {"rel": 1e-12, "abs": 1e-12}

# A machine of n = 3 visible and m = 2 hidden spins, f(x, h) = exp(b·x + c·h + xWh).
N_VISIBLE, N_HIDDEN = 3, 2
W, B, C = RNG.normal(size=(3, 2)), RNG.normal(size=3), RNG.normal(size=2)
X_STATES = np.array(list(itertools.product((-1, 1), repeat=N_VISIBLE)))
H_STATES = np.array(list(itertools.product((-1, 1), repeat=N_HIDDEN)))
DATA = X_STATES[[0, 3, 3, 6, 7], :]


def weights(w=W, b=B, c=C):
    """f(x, h), one row for each x."""
    return np.exp(X_STATES @ b[:, None] + (H_STATES @ c)[None, :] + X_STATES @ w @ H_STATES.T)


def row_of(x):
    return int(np.flatnonzero((x == X_STATES).all(1))[0])


# A latent-variable model of small tables: p(h) and p(x|h), one row for each h, and some q(h|x) for x = 0.
PRIOR = np.array([0.5, 0.3, 0.2])
LIKELIHOOD = np.array([[0.6, 0.2, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
JOINT = PRIOR[:, None] * LIKELIHOOD
EVIDENCE = JOINT.sum(0)
POSTERIOR = JOINT[:, 0] / EVIDENCE[0]
Q = np.array([0.2, 0.5, 0.3])


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def elbo(q, x=0):
    return sum(q[h] * math.log(JOINT[h, x] / q[h]) for h in range(3) if q[h] > 0)


def hermite(f, mean=0.0, std=1.0, order=80):
    """E[f(h)] for h of N(mean, std²)."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(order)
    return float(mass @ f(mean + std * nodes)) / math.sqrt(2 * math.pi)


def normal_density(x, mean, variance):
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def test_row_01_independent_points_multiply():
    p = weights().sum(1) / weights().sum()
    every_pair = [p[i] * p[j] for i in range(8) for j in range(8)]
    assert math.fsum(every_pair) == pytest.approx(1, **NEAR)
    for i in range(8):  # and the other point says nothing about this one
        assert math.fsum(every_pair[8 * i : 8 * i + 8]) == pytest.approx(p[i], **NEAR)


def test_row_02_f_over_z_is_a_probability():
    f = weights()
    assert math.fsum((f / f.sum()).flat) == pytest.approx(1, **NEAR)


def test_row_03_z_sums_over_configurations_not_over_the_data():
    f = weights()
    over_all = f.sum()
    over_data = sum(f[row_of(x)].sum() for x in DATA[:2])
    assert f.sum() / over_all == pytest.approx(1, **NEAR)
    assert abs(f.sum() / over_data - 1) > 0.1  # the board's literal reading is not normalised


def test_row_04_marginals_sum_over_the_other_layer():
    joint = weights() / weights().sum()
    for k, h in enumerate(H_STATES):
        closed = math.exp(C @ h) * np.prod(2 * np.cosh(B + W @ h)) / weights().sum()
        assert joint[:, k].sum() == pytest.approx(closed, **NEAR)
    assert joint.sum(1).sum() == pytest.approx(1, **NEAR)
    assert joint.sum(0).sum() == pytest.approx(1, **NEAR)


def test_row_05_number_of_configurations():
    assert len(X_STATES) == 2**N_VISIBLE != 2  # the board says 2
    assert len(H_STATES) == 2**N_HIDDEN
    assert weights().size == 2 ** (N_VISIBLE + N_HIDDEN)


def test_row_06_one_factor_of_z_for_each_point():
    f = weights().sum(1)
    z = f.sum()
    rows = [row_of(x) for x in DATA]
    right = math.prod(f[i] / z for i in rows)
    assert z ** -len(DATA) * math.prod(f[i] for i in rows) == pytest.approx(right, **NEAR)
    assert abs(math.prod(f[i] for i in rows) / z / right - 1) > 0.1  # the board's single 1/Z
    pairs = [f[i] * f[j] for i in range(8) for j in range(8)]
    assert math.fsum(pairs) / z**2 == pytest.approx(1, **NEAR)
    assert abs(math.fsum(pairs) / z - 1) > 0.1


def test_row_07_most_likely_is_nearest_in_kl():
    counts = np.bincount([row_of(x) for x in DATA], minlength=8) / len(DATA)
    entropy = -sum(d * math.log(d) for d in counts if d > 0)
    for scale in (0.1, 1.0, 3.0):
        p = weights(scale * W).sum(1) / weights(scale * W).sum()
        mean_log = sum(math.log(p[row_of(x)]) for x in DATA) / len(DATA)
        assert mean_log == pytest.approx(-entropy - kl(counts, p), **NEAR)


def test_row_08_the_gradient_has_n_times_the_model_term():
    def log_likelihood(w):
        f = weights(w)
        return sum(math.log(f[row_of(x)].sum() / f.sum()) for x in DATA)

    f = weights()
    given_x = f / f.sum(1, keepdims=True)
    data_term = sum(given_x[row_of(x)] @ H_STATES[:, 1] * x[0] for x in DATA)
    model_term = np.einsum("xh,x,h->", f / f.sum(), X_STATES[:, 0], H_STATES[:, 1])
    step = np.zeros_like(W)
    step[0, 1] = 1e-4
    slope = sum(  # a five-point difference: error of order step⁴
        k * log_likelihood(W + j * step) for j, k in ((-2, 1), (-1, -8), (1, 8), (2, -1))
    ) / (12 * 1e-4)
    assert data_term - len(DATA) * model_term == pytest.approx(slope, abs=1e-9)
    assert abs(data_term - model_term - slope) > 0.1  # the board has lost the N,
    p = f.sum(1) / f.sum()
    assert abs(data_term - p @ np.log(f.sum(1)) - slope) > 0.1  # and the ∇ inside the expectation
    assert abs(slope) > 0.1  # and "= 0" is the condition at the optimum, no identity


def test_row_09_evidence_is_joint_over_posterior():
    for h in range(3):
        assert JOINT[h, 0] / POSTERIOR[h] == pytest.approx(EVIDENCE[0], **NEAR)


def test_row_10_evidence_is_the_integral_over_the_prior():
    slope, shift, noise, x = 0.7, 0.2, 0.9, 1.1
    integral = hermite(lambda h: normal_density(x, slope * h + shift, noise**2))
    assert integral == pytest.approx(float(normal_density(x, shift, slope**2 + noise**2)), **NEAR)


def test_row_11_an_average_of_a_constant():
    assert sum(q * math.log(EVIDENCE[0]) for q in Q) == pytest.approx(math.log(EVIDENCE[0]), **NEAR)


def test_row_12_splitting_needs_a_finite_divergence():
    inside = sum(q * math.log(JOINT[h, 0] / POSTERIOR[h]) for h, q in enumerate(Q))
    assert inside == pytest.approx(math.log(EVIDENCE[0]), **NEAR)
    # p(x|h=2) = 0 but q(2) > 0: the two parts are −∞ and +∞, and their sum says nothing.
    log_joint = [math.log(0.3), math.log(0.1), -math.inf]
    log_posterior = [math.log(0.75), math.log(0.25), -math.inf]
    bound = float(sum(q * (a - math.log(q)) for q, a in zip(Q, log_joint, strict=True)))
    gap = float(sum(q * (math.log(q) - a) for q, a in zip(Q, log_posterior, strict=True)))
    assert (bound, gap) == (-math.inf, math.inf)
    assert math.isnan(bound + gap)


def test_row_12_absolute_continuity_is_not_enough():
    # q_k ∝ 1/k², p_k ∝ 2^−k: q ≪ p, yet the partial sums of KL(q‖p) grow like (6/π²) log 2 · log K.
    def partial(count):
        k = np.arange(1, count + 1, dtype=float)
        log_q = math.log(6 / math.pi**2) - 2 * np.log(k)
        return float((np.exp(log_q) * (log_q + k * math.log(2))).sum())

    growth = partial(10**6) - partial(10**5)
    assert growth == pytest.approx(6 / math.pi**2 * math.log(2) * math.log(10), rel=1e-3)


def test_row_13_evidence_is_bound_plus_gap():
    assert elbo(Q) + kl(Q, POSTERIOR) == pytest.approx(math.log(EVIDENCE[0]), **NEAR)


def test_row_14_the_gap_is_zero_only_at_the_posterior():
    assert kl(POSTERIOR, POSTERIOR) == 0
    for shift in (1e-3, 0.05, 0.2):
        assert kl(POSTERIOR + shift * np.array([1, -1, 0]) * POSTERIOR[1], POSTERIOR) > 0


def test_row_15_the_board_drops_the_prior():
    right = elbo(Q)
    board = sum(q * math.log(LIKELIHOOD[h, 0] / q) for h, q in enumerate(Q))
    dropped = sum(q * math.log(PRIOR[h]) for h, q in enumerate(Q))
    assert board + dropped == pytest.approx(right, **NEAR)
    assert abs(board + kl(Q, POSTERIOR) - math.log(EVIDENCE[0])) > 0.1  # as the board has it: no identity
    # With q = p(h|x) the board's "bound" exceeds what it should bound.
    above = sum(q * math.log(LIKELIHOOD[h, 0] / q) for h, q in enumerate(POSTERIOR))
    assert above > math.log(EVIDENCE[0]) + 0.1


def test_row_16_the_bound_is_below_and_has_no_sign():
    assert elbo(Q) < math.log(EVIDENCE[0]) < 0  # discrete: never positive, so "≥ 0" is wrong
    assert elbo(POSTERIOR) == pytest.approx(math.log(EVIDENCE[0]), **NEAR)
    # A density can exceed one: x = h + 0.01 ε, h of N(0, 0.01²): log p(0) = −log(0.01 √(4π)) > 0, attained.
    variance = 2 * 0.01**2
    assert -0.5 * math.log(2 * math.pi * variance) > 3


def test_row_17_joint_is_likelihood_times_prior():
    assert JOINT.sum() == pytest.approx(1, **NEAR)
    assert JOINT / JOINT.sum(1, keepdims=True) == pytest.approx(LIKELIHOOD, **NEAR)


def test_row_18_the_logarithm_splits():
    split = sum(q * math.log(LIKELIHOOD[h, 0]) for h, q in enumerate(Q))
    split += sum(q * math.log(PRIOR[h] / q) for h, q in enumerate(Q))
    assert split == pytest.approx(elbo(Q), **NEAR)


def test_row_19_reconstruction_less_divergence_from_the_prior():
    reconstruction = sum(q * math.log(LIKELIHOOD[h, 0]) for h, q in enumerate(Q))
    assert reconstruction - kl(Q, PRIOR) == pytest.approx(elbo(Q), **NEAR)
    assert abs(reconstruction + kl(Q, PRIOR) - elbo(Q)) > 0.1  # the sign matters
    assert abs(reconstruction - kl(PRIOR, Q) - elbo(Q)) > 1e-3  # and so does the order


def test_row_20_the_covariance_is_sigma_not_its_square():
    grid = np.linspace(-12, 12, 4001)
    sigma = 0.7
    density = normal_density(grid, 0.0, sigma**2)
    measured = float((density * grid**2).sum() * (grid[1] - grid[0]))
    assert measured == pytest.approx(sigma**2, abs=1e-12)  # Σ = σ²: what N(μ, Σ) takes is a variance
    assert abs(measured - sigma**4) > 0.1  # Σ² would be σ⁴


def test_row_21_the_decoder_gives_a_distribution():
    def decoder(h):  # the network: one number in, one number out, no randomness
        return math.tanh(1.5 * h - 0.3)

    log_odds = decoder(0.4)
    assert decoder(0.4) == log_odds
    on = 1 / (1 + math.exp(-log_odds))
    assert on + (1 - on) == 1
    assert 0 < on < 1  # the same h gives x = 0 and x = 1, both with weight


def test_row_22_the_objective_is_summed_over_the_data():
    # Fit p(x=1) = p, no latent variable, so the bound is log p(x). One point wants p = 1, the data 2/3.
    grid = np.linspace(0.001, 0.999, 999)
    one = np.log(grid)
    data = 2 * np.log(grid) + np.log(1 - grid)
    assert grid[one.argmax()] == pytest.approx(0.999)
    assert grid[data.argmax()] == pytest.approx(2 / 3, abs=1e-3)
    assert (data / 3).argmax() == data.argmax()  # sum or mean: the same place


def test_row_23_draws_come_from_q():
    mean, std, x, noise = 0.6, 0.5, 1.2, 0.8

    def log_likelihood(h):
        return -((x - h) ** 2) / (2 * noise**2) - 0.5 * math.log(2 * math.pi * noise**2)

    closed = -((x - mean) ** 2 + std**2) / (2 * noise**2) - 0.5 * math.log(2 * math.pi * noise**2)
    assert hermite(lambda e: log_likelihood(mean + std * e)) == pytest.approx(closed, **NEAR)  # h = μ + σ ε
    assert abs(hermite(log_likelihood) - closed) > 0.1  # draws from the prior estimate something else


def stochastic(size, rng):
    t = rng.random((size, size))
    return t / t.sum(0)


def test_row_24_longer_times_compose():
    first, second = stochastic(4, RNG), stochastic(4, RNG)
    p = RNG.dirichlet(np.ones(4))
    one_by_one = [sum(first[i, j] * p[j] for j in range(4)) for i in range(4)]
    one_by_one = [sum(second[i, j] * one_by_one[j] for j in range(4)) for i in range(4)]
    assert (second @ first) @ p == pytest.approx(np.array(one_by_one), **NEAR)


def test_row_25_columns_sum_to_one_not_rows():
    t = stochastic(4, RNG)
    p = RNG.dirichlet(np.ones(4))
    assert (t @ p).sum() == pytest.approx(1, **NEAR)
    board = t.T  # rows sum to one, as the board writes
    assert board.sum(1) == pytest.approx(np.ones(4), **NEAR)
    assert abs((board @ p).sum() - 1) > 1e-3  # probability is lost or made


def test_row_26_the_latest_matrix_stands_on_the_left():
    first, second = stochastic(3, RNG), stochastic(3, RNG)
    p = np.array([1.0, 0.0, 0.0])
    right = second @ (first @ p)
    assert second @ first @ p == pytest.approx(right, **NEAR)
    assert np.abs(first @ second @ p - right).max() > 1e-3
    assert np.abs(first @ first @ p - right).max() > 1e-3  # a power is for a chain that does not change


def test_row_27_evolution_keeps_the_sum():
    t, p = stochastic(6, RNG), RNG.dirichlet(np.ones(6))
    for _ in range(10):
        p = t @ p
        assert p.sum() == pytest.approx(1, **NEAR)


def test_row_28_m_steps_are_the_mth_power():
    t, p = stochastic(4, RNG), RNG.dirichlet(np.ones(4))
    walked = p
    for _ in range(7):
        walked = t @ walked
    assert np.linalg.matrix_power(t, 7) @ p == pytest.approx(walked, **NEAR)


def test_row_29_a_fixed_point_of_a_power_is_not_stationary():
    flip = np.array([[0.0, 1.0], [1.0, 0.0]])
    p = np.array([0.9, 0.1])
    assert (flip @ flip @ p == p).all()
    assert np.abs(flip @ p - p).max() > 0.5  # T²P = P, yet TP ≠ P, and T^m P has no limit
    absorbing = np.array([[1.0, 0.5], [0.0, 0.5]])  # reducible, one closed class, aperiodic: a limit exists
    for start in ([1.0, 0.0], [0.0, 1.0]):
        assert np.linalg.matrix_power(absorbing, 60) @ start == pytest.approx(np.array([1.0, 0.0]), **NEAR)
    two_classes = np.eye(2)  # a limit exists but depends on the start
    assert (two_classes @ [1.0, 0.0] != two_classes @ [0.0, 1.0]).any()


def test_row_30_a_chain_of_latents_has_the_same_bound():
    top, middle, bottom = RNG.dirichlet(np.ones(2)), stochastic(2, RNG), stochastic(2, RNG)
    joint = np.einsum("c,bc,ab->abc", top, middle, bottom)  # p(x, h1, h2) = p(x|h1) p(h1|h2) p(h2)
    up, further = stochastic(2, RNG)[:, 0], stochastic(2, RNG)  # q(h1|x=0), q(h2|h1) fixed in advance
    q = np.einsum("b,cb->bc", up, further)
    x0 = joint[0]
    bound = (q * np.log(x0 / q)).sum()
    gap = (q * np.log(q / (x0 / x0.sum()))).sum()
    assert bound + gap == pytest.approx(math.log(x0.sum()), **NEAR)
    assert gap > 1e-3


# --- traps that are not on the board ---------------------------------------------------------------------------------


def mean_log_normal(value, other, slope, variance, covariance):
    """E log N(value; slope·other, variance), for centred (value, other) given by means and their covariance."""
    (mean_v, mean_o), (vv, vo, oo) = (value, other), covariance
    square = (mean_v - slope * mean_o) ** 2 + vv - 2 * slope * vo + slope**2 * oo
    return -0.5 * (math.log(2 * math.pi * variance) + square / variance)


def test_trap_1_the_consistency_form_is_not_the_bound():
    """Data N(0, 1), two levels, the exact reverse as decoder: the bound is log p(x), the copied form is below."""
    alpha, x = 0.8, 0.9
    noise = 1 - alpha**2
    m1, m2, v1, v2, cov = alpha * x, alpha**2 * x, noise, 1 - alpha**4, alpha * noise  # of h1, h2 given x
    first = mean_log_normal(x, m1, alpha, noise, (0.0, 0.0, v1))
    top = mean_log_normal(m2, 0.0, 0.0, 1.0, (v2, 0.0, 0.0))
    entropies = -0.5 * (math.log(2 * math.pi * noise) + 1)  # E log q(h1|x), and of q(h2|h1) alike
    along = mean_log_normal(m1, m2, alpha, noise, (v1, cov, v2))  # h1 and h2 of one path
    apart = mean_log_normal(m1, m2, alpha, noise, (v1, 0.0, v2))  # h2 drawn without h1
    log_p = -0.5 * (math.log(2 * math.pi) + x**2)
    assert first + along + top - 2 * entropies == pytest.approx(log_p, **NEAR)
    assert first + apart + top - 2 * entropies == pytest.approx(log_p - alpha**2, **NEAR)


def test_trap_2_a_short_chain_does_not_end_in_noise():
    """β from 1e-4 to 0.02: what is left after 300 and 1,000 steps; the nats of a pixel with x² = 1, and of sheets."""
    left = {steps: math.prod(1 - b for b in np.linspace(1e-4, 0.02, steps)) for steps in (300, 1000)}
    assert left[300] == pytest.approx(0.048, abs=5e-4)
    assert left[1000] < 5e-5
    nodes = np.linspace(-9, 9, 4001)
    for alpha_squared in left.values():
        q = normal_density(nodes, math.sqrt(alpha_squared), 1 - alpha_squared)
        measured = float((q * np.log(q / normal_density(nodes, 0.0, 1.0))).sum() * (nodes[1] - nodes[0]))
        snr = alpha_squared / (1 - alpha_squared)
        assert measured == pytest.approx(0.5 * math.log1p(snr), abs=1e-9)
    nats = {}  # KL(q(x_T) ‖ N(0, I)) for sheets of 64 equal pixels N(0, 1): lost whatever the decoder
    for steps, kept in left.items():
        nats[steps] = -0.5 * np.linalg.slogdet(kept * np.ones((64, 64)) + (1 - kept) * np.eye(64))[1]
    assert nats[300] > 0.8
    assert 0 <= nats[1000] < 1e-5


def test_trap_3_unit_time_in_a_ladder_for_integers_has_almost_no_rank():
    """64 sinusoids with periods from 2π up: directions above a hundredth of the largest, on [0, 1] and on 1 … 1,000."""
    frequencies = 10_000.0 ** (-np.arange(32) / 32)

    def rank(t):
        angles = t[:, None] * frequencies
        values = np.linalg.svd(np.concatenate([np.sin(angles), np.cos(angles)], 1), compute_uv=False)
        return int((values > 0.01 * values[0]).sum())

    assert rank(np.linspace(0, 1, 1000)) <= 3
    assert rank(np.arange(1, 1001.0)) >= 20


def test_trap_4_the_root_subtracts_the_noise_that_is_added():
    """Song, Meng & Ermon's step with the right x̂_0, by Gauss–Hermite over both noises: x_r keeps q(x_r|x_0)."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(8)
    mass = np.outer(mass, mass) / (2 * math.pi)
    x0, (alpha_t, sigma_t), (alpha_r, sigma_r) = 0.7, (math.sqrt(0.3), math.sqrt(0.7)), (math.sqrt(0.6), math.sqrt(0.4))
    xt = alpha_t * x0 + sigma_t * nodes[:, None]

    def variance(root, added):
        xr = alpha_r * x0 + root * (xt - alpha_t * x0) / sigma_t + math.sqrt(added) * nodes[None, :]
        mean = float((mass * xr).sum())
        assert mean == pytest.approx(alpha_r * x0, **NEAR)
        return float((mass * (xr - mean) ** 2).sum())

    for eta in (0.3, 1.0):
        added = eta**2 * (sigma_r / sigma_t) ** 2 * (1 - (alpha_t / alpha_r) ** 2)
        assert variance(math.sqrt(sigma_r**2 - added), added) == pytest.approx(sigma_r**2, **NEAR)
        assert variance(sigma_r, added) > sigma_r**2 + 0.02
    # with η = 1 it is the chain's own posterior: its variance by conditioning (x_r, x_t) given x_0
    conditioned = sigma_r**2 - (alpha_t / alpha_r * sigma_r**2) ** 2 / sigma_t**2
    assert (sigma_r / sigma_t) ** 2 * (1 - (alpha_t / alpha_r) ** 2) == pytest.approx(conditioned, **NEAR)
    # the last step goes to α = 1, σ = 0; a loop that ends at the first level hands out its noise
    alpha_r, sigma_r = 1.0, 0.0
    assert variance(0.0, 0.0) == pytest.approx(0, **NEAR)
    alpha_r, sigma_r = math.sqrt(1 - 1e-4), math.sqrt(1e-4)
    assert variance(sigma_r, 0.0) == pytest.approx(1e-4, rel=1e-9)


def test_trap_5_each_gaussian_machine_has_its_own_mean():
    """E = ½((x−a)/σ)² − (…)Wh with one hidden unit on, by summing the density on a grid."""
    a, sigma, pull = 0.5, 1.7, 0.6  # Wh
    grid = np.linspace(-25, 25, 20001)
    means = {"x/σ²": a + pull, "x": a + sigma**2 * pull, "x/σ": a + sigma * pull}
    scale = {"x/σ²": 1 / sigma**2, "x": 1.0, "x/σ": 1 / sigma}
    for form, mean in means.items():
        density = np.exp(-0.5 * ((grid - a) / sigma) ** 2 + scale[form] * grid * pull)
        measured = float((density * grid).sum() / density.sum())
        assert measured == pytest.approx(mean, abs=1e-10)
        for other in set(means) - {form}:
            assert abs(measured - means[other]) > 0.1


def test_trap_6_the_walk_on_an_even_ring_has_no_limit():
    """±1 on a ring of six: eigenvalue −1, even sites at even times. A line with open ends loses probability."""
    one = np.eye(6)
    walk = (np.roll(one, 1, 0) + np.roll(one, -1, 0)) / 2
    assert np.linalg.eigvalsh(walk)[0] == pytest.approx(-1, **NEAR)
    start = one[0]
    even, odd = (np.linalg.matrix_power(walk, m) @ start for m in (200, 201))
    assert even[[1, 3, 5]].max() == odd[[0, 2, 4]].max() == 0
    five = (np.roll(np.eye(5), 1, 0) + np.roll(np.eye(5), -1, 0)) / 2  # odd: there is a limit
    assert np.linalg.matrix_power(five, 400)[:, 0] == pytest.approx(np.full(5, 0.2), **NEAR)
    open_line = (np.eye(6, k=1) + np.eye(6, k=-1)) / 2
    assert (np.linalg.matrix_power(open_line, 10) @ start).sum() < 0.7
    kept = open_line + np.diag([0.5, 0, 0, 0, 0, 0.5])  # who cannot hop stays
    assert (np.linalg.matrix_power(kept, 10) @ start).sum() == pytest.approx(1, **NEAR)


def test_trap_7_grey_values_in_a_bernoulli_are_no_likelihood():
    """Its mass over [0, 1] is below ½ whatever the probability; a density changes with the unit, a probability not."""
    nodes, mass = np.polynomial.legendre.leggauss(40)
    grey = (nodes + 1) / 2
    for p in (0.1, 0.5, 0.9):
        assert float(mass @ (p**grey * (1 - p) ** (1 - grey))) / 2 <= 0.5 + 1e-12
        assert p + (1 - p) == 1  # binary values: a probability
    # sixteen levels, uniform: the same model as a density on [0, 16) and on [0, 1)
    per_level, per_unit = math.log(1 / 16), math.log(1.0)
    assert per_unit - per_level == pytest.approx(math.log(16), **NEAR)
    assert per_unit - math.log(16) == pytest.approx(math.log(1 / 16), **NEAR)  # less log 16: the nats of a level


def test_trap_8_a_mean_over_pixels_is_another_objective():
    """n pixels x_i = h + noise, h of N(0, 1): the encoder's best variance is the posterior's only for the sum."""
    n, noise = 25, 0.8
    grid = np.exp(np.linspace(-6, 1, 70001))
    divergence = 0.5 * (grid - 1 - np.log(grid))
    by_sum = grid[(n * grid / (2 * noise) + divergence).argmin()]
    by_mean = grid[(grid / (2 * noise) + divergence).argmin()]
    covariance = np.ones((n, n)) + noise * np.eye(n)  # of x, and h beside it has covariance 1 with each pixel
    posterior = 1 - np.ones(n) @ np.linalg.solve(covariance, np.ones(n))
    assert by_sum == pytest.approx(posterior, rel=1e-3)
    assert by_mean > 10 * posterior
    weighted = grid[(n * grid / (2 * noise) + n * divergence).argmin()]  # the same as a weight n on the divergence
    assert weighted == by_mean


def test_trap_8_the_score_on_the_training_data_flatters():
    """All samples of five coins with p = 0.3, a smoothed frequency fitted to each: the mean score seen and held out."""
    p, seen, held_out = 0.3, 0.0, 0.0
    for k in range(6):
        weight = math.comb(5, k) * p**k * (1 - p) ** (5 - k)
        fitted = (k + 0.5) / 6
        seen += weight * (k / 5 * math.log(fitted) + (1 - k / 5) * math.log(1 - fitted))
        held_out += weight * (p * math.log(fitted) + (1 - p) * math.log(1 - fitted))
    truth = p * math.log(p) + (1 - p) * math.log(1 - p)
    assert held_out < truth < seen


def test_trap_9_the_divergence_collapses_codes_and_its_logarithm_holds_them():
    """½(μ² + s² − 1 − log s²) alone is least at the prior; without −log s² at s = 0. With data, a threshold decides."""
    s2 = np.exp(np.linspace(-8, 2, 10001))
    assert s2[(0.5 * (s2 - 1 - np.log(s2))).argmin()] == pytest.approx(1, rel=1e-3)
    assert (0.5 * (s2 - 1)).argmin() == 0  # runs to the edge: the code has no width left
    for variance, noise in ((0.5, 1.0), (2.0, 1.0)):  # x of this variance, decoder w h + noise, best encoder
        w = np.linspace(0, 3, 30001)
        bound = -0.5 * np.log(w**2 + noise) - variance / (2 * (w**2 + noise))
        best = w[bound.argmax()]
        assert best == pytest.approx(math.sqrt(max(variance - noise, 0)), abs=1e-3)  # collapsed below the noise
