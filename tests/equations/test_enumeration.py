"""The equations of the page on the three-group product, in float64 and without sampling error.

Tables and sums are written out in Python and NumPy over spins from itertools, pair by pair; large sums in mpmath. The
package's machines are held against them where they do the same.
"""

import itertools
import math
from functools import cache

import mpmath
import numpy as np
import torch
from harness import assert_at_most, assert_close, equation

from lecturecode.boltzmann import BoltzmannMachine

f64 = torch.float64


def configurations(n, values=(-1, 1)):
    return np.array(list(itertools.product(values, repeat=n)), dtype=float)


def parameters(n, seed=3, scale=0.6):
    rng = np.random.default_rng(seed)
    upper = np.triu(scale * rng.normal(size=(n, n)), 1)
    return upper + upper.T, scale * rng.normal(size=n)


def log_weight(J, b, s, units=None):
    """Pair by pair, over the named units only."""
    units = range(len(b)) if units is None else units
    pairs = sum(J[i, j] * s[i] * s[j] for i, j in itertools.combinations(units, 2))
    return pairs + sum(b[i] * s[i] for i in units)


def all_weights(J, b):
    return np.array([log_weight(J, b, s) for s in configurations(len(b))])


def log_sum(v):
    v = np.asarray(v, dtype=float)
    return v.max() + math.log(math.fsum(np.exp(v - v.max())))


def tables(J, b, sizes):
    """log Y, log X, log W entry by entry; units in the order A, B, C."""
    k_a, k_b, k_c = sizes
    A, B, C = range(k_a), range(k_a, k_a + k_b), range(k_a + k_b, k_a + k_b + k_c)
    sa, sb, sc = (configurations(k) for k in sizes)

    def between(rows, columns, P, Q):
        pair = [
            [sum(J[i, j] * p[x] * q[y] for x, i in enumerate(P) for y, j in enumerate(Q)) for q in columns]
            for p in rows
        ]
        return np.array(pair)

    def alone(rows, P):
        return np.array([log_weight(J[np.ix_(P, P)], b[list(P)], row) for row in rows])

    log_y = alone(sa, A)[:, None] + between(sa, sb, A, B)
    log_w = alone(sb, B)[None, :] + alone(sc, C)[:, None] + between(sc, sb, C, B)
    return log_y, between(sa, sc, A, C), log_w


def machine_of(J, b):
    return BoltzmannMachine(torch.from_numpy(J), torch.from_numpy(b))


def scaled(log_y, log_x, log_w):
    """σ(a) and the three tables with entries up to one; the largest entries found by search."""
    r_y, r_x, r_w = log_y.max(1), log_x.max(1), log_w.max()
    return r_y + r_x + r_w, np.exp(log_y - r_y[:, None]), np.exp(log_x - r_x[:, None]), np.exp(log_w - r_w)


def flushed(sigma, Y, X, W, floor):
    """Z̃ in an arithmetic whose numbers end at e^−floor: loops, every product on its own."""
    least = math.exp(-floor)

    def cut(v):
        return v if v > least else 0.0

    rows = []
    for a in range(len(sigma)):
        row = 0.0
        for c_b in range(W.shape[1]):
            inner = sum(cut(cut(X[a, c]) * cut(W[c, c_b])) for c in range(W.shape[0]))
            row += cut(cut(Y[a, c_b]) * inner)
        rows.append(math.exp(sigma[a]) * row)
    return math.fsum(rows)


@cache
def with_tables(n, sizes):
    """A machine and its Y, X and W: beyond 16 units the package multiplies its own tables, and these are not they."""
    J, b = parameters(n, seed=n)
    return machine_of(J, b), *(np.exp(t) for t in tables(J, b, sizes))


@equation("groups-split")
def test_no_term_knows_three_groups():
    """The log-weight of every configuration, pair by pair, against three tables."""
    for sizes in ((3, 2, 2), (1, 2, 3)):
        J, b = parameters(sum(sizes))
        log_y, log_x, log_w = tables(J, b, sizes)
        joint = log_y[:, :, None] + log_x[:, None, :] + log_w.T[None]
        assert_close(joint.reshape(-1), all_weights(J, b))


@equation("groups-product")
def test_z_is_a_matrix_product():
    """Against a plain sum in mpmath and against the package's log Z, on both sides of its switch of method."""
    J, b = parameters(8)
    Y, X, W = (np.exp(t) for t in tables(J, b, (3, 3, 2)))
    Z = (Y * (X @ W)).sum()
    exact = mpmath.log(mpmath.fsum(mpmath.exp(float(v)) for v in all_weights(J, b)))
    assert_close(math.log(Z), float(exact))
    for n, sizes in ((8, (2, 3, 3)), (18, (6, 6, 6))):
        machine, Y, X, W = with_tables(n, sizes)
        assert_close(machine.log_partition().detach(), math.log((Y * (X @ W)).sum()))


@equation("groups-cost")
def test_multiplications_and_exponentials_are_counted():
    """A product in loops that counts what it does; the bound is met by equal groups."""
    counts, bounds = [], []
    for sizes in ((2, 2, 2), (3, 2, 1), (1, 1, 4), (4, 1, 1)):
        n = sum(sizes)
        logs = tables(*parameters(n), sizes)
        exponentials = products = extra = 0
        filled = []
        for log in logs:
            filled.append([[math.exp(v) for v in row] for row in log])
            exponentials += log.size
        Y, X, W = filled
        Z = 0.0
        for a in range(2 ** sizes[0]):
            for c_b in range(2 ** sizes[1]):
                inner = 0.0
                for c in range(2 ** sizes[2]):
                    inner += X[a][c] * W[c][c_b]
                    products += 1
                Z += Y[a][c_b] * inner
                extra += 1
        a, c_b, c = sizes
        assert_close(
            [products, extra, exponentials],
            [2.0**n, 2.0 ** (a + c_b), 2.0 ** (a + c_b) + 2.0 ** (a + c) + 2.0 ** (c_b + c)],
        )
        assert_close(math.log(Z), log_sum(all_weights(*parameters(n))))
        counts.append(exponentials)
        bounds.append(3 * 2 ** (2 * n / 3))
    assert_at_most(bounds, counts)
    assert_close(round(3 * 2.0**24 / 1e6), 50.0)
    assert_close(round(3 * 8 * 2.0**24 / 1e6, -2), 400.0)


@equation("groups-outer")
def test_a_row_is_an_outer_product():
    """Every entry; and the exponentials of all rows of X and Y and of W, counted, for n = 10 and k = 4."""
    J, b = parameters(10)
    n, k = 10, 4
    sa, s = configurations(n - 2 * k), configurations(2)
    _, log_x, log_w = tables(J, b, (2, 4, 4))
    log_y = np.array(
        [[sum(J[i, 2 + j] * a[i] * t[j] for i in range(2) for j in range(4)) for t in configurations(4)] for a in sa]
    )
    count = log_w.size
    for row, a in enumerate(sa):
        for first, log in ((6, log_x), (2, log_y)):
            F = [sum(J[first + j, i] * a[i] for i in range(2)) for j in range(4)]
            left = [math.exp(F[0] * t[0] + F[1] * t[1]) for t in s]
            right = [math.exp(F[2] * t[0] + F[3] * t[1]) for t in s]
            count += len(left) + len(right)
            assert_close([p * q for p in left for q in right], np.exp(log[row]))
    assert_close(count, 2.0 ** (n - 2 * k) * 4 * 2.0 ** (k / 2) + 2.0 ** (2 * k))


@equation("groups-scales")
def test_scales_are_exact_and_nothing_overflows():
    """The two maxima by search; entries up to one and one in each row; log Z at ±1000 in mpmath."""
    J, b = parameters(9, scale=500.0)
    sizes = (3, 3, 3)
    sa, s = configurations(3), configurations(3)
    _, log_x, log_w = tables(J, b, sizes)
    own = np.array([log_weight(J[:3, :3], b[:3], a) for a in sa])
    F_b, F_c = sa @ J[:3, 3:6], sa @ J[:3, 6:]
    assert_close((F_b @ s.T).max(1), np.abs(F_b).sum(1))
    assert_close(log_x.max(1), np.abs(F_c).sum(1))
    sigma = own + np.abs(F_b).sum(1) + np.abs(F_c).sum(1) + log_w.max()
    Y = np.exp(F_b @ s.T - np.abs(F_b).sum(1)[:, None])
    X = np.exp(F_c @ s.T - np.abs(F_c).sum(1)[:, None])
    W = np.exp(log_w - log_w.max())
    assert_close(Y.max(1), 1.0)
    assert_close(X.max(1), 1.0)
    assert_close(W.max(), 1.0)
    with np.errstate(divide="ignore"):
        found = log_sum(sigma + np.log((Y * (X @ W)).sum(1)))
    exact = mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(float(v))) for v in all_weights(J, b)))
    assert abs(J).max() > 500
    assert_close(found, float(exact))
    assert_close(machine_of(J, b).log_partition().detach(), float(exact))


@equation("groups-bound")
def test_no_weight_is_above_the_bound():
    """ℓ is met where B and C pull nowhere, and the bound of log Z where all configurations weigh the same."""
    heaviest, bounds, logs = [], [], []
    for J, b in (parameters(6), parameters(6, scale=3.0), (np.zeros((6, 6)), np.zeros(6)), aligned(6)):
        sigma, *_ = scaled_by_fields(J, b, (2, 2, 2))
        weights = all_weights(J, b)
        heaviest.append(weights.max())
        bounds.append(sigma.max())
        logs.append(log_sum(weights))
    assert_at_most(heaviest, bounds)
    assert_at_most(logs, np.array(bounds) + 6 * math.log(2))
    assert_close([heaviest[3], logs[2]], [bounds[3], bounds[2] + 6 * math.log(2)])


def aligned(n):
    """All couplings and biases positive: every group wants to point up."""
    J = np.full((n, n), 0.7)
    np.fill_diagonal(J, 0)
    return J, np.full(n, 0.2)


def scaled_by_fields(J, b, sizes):
    """σ(a) by the formula of fields; the tables with entries up to one."""
    k_a, k_b, _ = sizes
    sa = configurations(k_a)
    log_y, log_x, log_w = tables(J, b, sizes)
    own = np.array([log_weight(J[:k_a, :k_a], b[:k_a], a) for a in sa])
    F_b, F_c = sa @ J[:k_a, k_a : k_a + k_b], sa @ J[:k_a, k_a + k_b :]
    r_b, r_c = np.abs(F_b).sum(1), np.abs(F_c).sum(1)
    sigma = own + r_b + r_c + log_w.max()
    Y, X = np.exp(log_y - (own + r_b)[:, None]), np.exp(log_x - r_c[:, None])
    return sigma, Y, X, np.exp(log_w - log_w.max())


@equation("groups-certificate")
def test_what_is_lost_is_below_the_certificate():
    """An arithmetic that ends at e^−floor, in loops. The bound is met by a table whose every entry is just lost."""
    for scale, floor in ((1.0, 20.0), (3.0, 20.0), (3.0, 40.0), (6.0, 60.0)):
        J, b = parameters(6, scale=scale)
        sigma, Y, X, W = scaled_by_fields(J, b, (2, 2, 2))
        shift = sigma.max()
        Z = math.fsum(np.exp(all_weights(J, b) - shift))
        lost = Z - flushed(sigma - shift, Y, X, W, floor)
        assert -1e-13 * Z <= lost <= 2**6 * math.exp(-floor) + 1e-13 * Z  # rounding
    floor = 25.0
    sigma, ones = np.zeros(4), np.ones((4, 4))
    kept, gone = flushed(sigma, ones, ones, ones, floor), flushed(sigma, ones, math.exp(-floor) * ones, ones, floor)
    assert_close([kept, gone], [2.0**6, 0.0])
    just_lost = 4 * 4 * 4 * math.exp(-floor) - gone
    assert_at_most(math.log(just_lost), math.log(2**6 * math.exp(-floor)))
    assert_close(math.log(just_lost), 6 * math.log(2) - floor)
    assert math.exp(-708) > np.finfo(float).tiny > math.exp(-709)  # every number above e^−708 is stored in full
    assert math.exp(-87) > np.finfo(np.float32).tiny > math.exp(-88)


@equation("groups-certified")
def test_the_certificate_reads_off_the_loss():
    """δ from ℓ and log Z̃ alone; the loss is at most δ, and three quarters of it where three rows in four are lost."""
    losses, deltas = [], []
    for scale, floor in ((1.0, 15.0), (3.0, 20.0), (3.0, 40.0)):
        J, b = parameters(6, scale=scale)
        sigma, Y, X, W = scaled_by_fields(J, b, (2, 2, 2))
        left = math.log(flushed(sigma - sigma.max(), Y, X, W, floor)) + sigma.max()
        losses.append(log_sum(all_weights(J, b)) - left)
        deltas.append(math.exp(sigma.max() - left - floor + 6 * math.log(2)))
        assert_close(sigma.max() - left, floor - 6 * math.log(2) - math.log(1 / deltas[-1]))
    assert min(losses) > -1e-13
    assert_at_most(losses, deltas)
    floor = 30.0
    X = np.ones((4, 4))
    X[1:] = math.exp(-floor)  # three rows in four are lost, and weigh as much as the certificate allows
    kept = flushed(np.zeros(4), np.ones((4, 4)), X, np.ones((4, 4)), floor)
    loss = math.log1p(3 * 16 * math.exp(-floor) / kept)
    assert_close(loss * 1e12, 3e12 * math.exp(-floor))
    assert_at_most(loss, 2**6 * math.exp(-floor) / kept)


@equation("groups-rounding")
def test_no_cancellation_enlarges_an_error():
    """Weights with random relative errors; the bound is met when all have the same."""
    rng = np.random.default_rng(5)
    weights = all_weights(*parameters(6))
    changes, limits = [], []
    for errors in (1e-3 * rng.normal(size=64), -0.1 * rng.random(64), np.full(64, 0.02)):
        changes.append(abs(log_sum(weights + errors) - log_sum(weights)))
        limits.append(abs(errors).max())
    assert_at_most(changes, limits)
    assert_close(changes[2], limits[2])


@equation("groups-clamping")
def test_a_clamped_unit_is_a_bias_of_the_others():
    """Sums over the halves, against a machine of one unit less written out, and against the package's `clamp`."""
    J, b = parameters(5)
    S, weights = configurations(5), all_weights(J, b)
    machine = machine_of(J, b)
    total = log_sum(weights)
    for i in (0, 3):
        rest = [j for j in range(5) if j != i]
        halves = []
        for v in (-1.0, 1.0):
            half = log_sum(weights[S[:, i] == v])
            small = all_weights(J[np.ix_(rest, rest)], b[rest] + J[rest, i] * v)
            assert_close(v * b[i] + log_sum(small), half)
            assert_close(machine.clamp([i], [v]).log_partition().detach(), half)
            halves.append(half)
        assert_close(np.logaddexp(*halves), total)
        marginal = machine.marginal([i]).detach()
        assert_close(marginal, np.exp(np.array(halves) - total))


@equation("groups-symmetry")
def test_half_is_enough_without_biases():
    J, _ = parameters(5)
    b = np.zeros(5)
    half = log_sum(all_weights(J, b)[configurations(5)[:, 2] == 1])
    assert_close(log_sum(all_weights(J, b)), math.log(2) + half)
    assert_close(machine_of(J, b).log_partition().detach(), math.log(2) + half)
    assert_close(machine_of(J, b).clamp([2], [1.0]).log_partition().detach(), half)


def joint(J, b, sizes):
    weights = all_weights(J, b)
    return np.exp(weights - log_sum(weights)).reshape([2**k for k in sizes])


@equation("groups-pair-tables")
def test_two_groups_have_their_joint_distribution():
    sizes = (2, 3, 2)
    J, b = parameters(7)
    Y, X, W = (np.exp(t) for t in tables(J, b, sizes))
    p, Z = joint(J, b, sizes), math.fsum(np.exp(all_weights(J, b)))
    assert_close(Y * (X @ W) / Z, p.sum(2))
    assert_close(X * (Y @ W.T) / Z, p.sum(1))
    assert_close(W * (X.T @ Y) / Z, p.sum(0).T)


@equation("groups-moments")
def test_moments_from_three_products():
    """Blocks of ⟨s sᵀ⟩ from the tables, against the package's moments and a plain sum."""
    sizes = (2, 3, 2)
    J, b = parameters(7)
    Y, X, W = (np.exp(t) for t in tables(J, b, sizes))
    Z = (Y * (X @ W)).sum()
    sa, sb, sc = (configurations(k) for k in sizes)
    P_ab, P_ac, P_cb = Y * (X @ W) / Z, X * (Y @ W.T) / Z, W * (X.T @ Y) / Z
    S = configurations(7)
    second = (S.T * joint(J, b, sizes).reshape(-1)) @ S
    assert_close(sa.T @ P_ab @ sb, second[:2, 2:5])
    assert_close(sa.T @ P_ac @ sc, second[:2, 5:])
    assert_close(sc.T @ P_cb @ sb, second[5:, 2:5])
    assert_close(sa.T @ np.diag(P_ab.sum(1)) @ sa, second[:2, :2])
    assert_close(sb.T @ np.diag(P_ab.sum(0)) @ sb, second[2:5, 2:5])
    assert_close(sc.T @ np.diag(P_cb.sum(1)) @ sc, second[5:, 5:])
    assert_close(machine_of(J, b).moments().second.detach(), second)
    machine, Y, X, W = with_tables(18, (6, 6, 6))  # the package's own products, with other groups
    s, found = configurations(6), machine.moments()
    P_ab, P_ac, P_cb = Y * (X @ W), X * (Y @ W.T), W * (X.T @ Y)
    Z = P_ab.sum()
    blocks = ((P_ab.T, 6, 0), (P_ac.T, 12, 0), (P_cb, 12, 6), (np.diag(P_cb.sum(1)), 12, 12))
    for P, row, column in blocks:
        assert_close(found.second.detach()[row : row + 6, column : column + 6], s.T @ (P / Z) @ s)
    assert_close(found.mean.detach()[:6], P_ab.sum(1) @ s / Z)


@equation("groups-sampling")
def test_group_by_group_is_the_joint():
    sizes = (2, 2, 3)
    J, b = parameters(7)
    Y, X, W = (np.exp(t) for t in tables(J, b, sizes))
    p = joint(J, b, sizes)
    P_ab = Y * (X @ W) / (Y * (X @ W)).sum()
    first = P_ab.sum(1)
    assert_close(first, p.sum((1, 2)))
    assert_close(P_ab / first[:, None], p.sum(2) / p.sum((1, 2))[:, None])
    given = X[:, None, :] * W.T[None] / (X @ W)[:, :, None]
    assert_close(given, p / p.sum(2)[:, :, None])
    assert_close(given.sum(2), 1.0)


# --- the solutions ---------------------------------------------------------------------------------------------------


@equation("groups-exponentials-by-hand")
def test_solution_of_the_exponentials():
    """One row's exponentials counted from the lengths of its four factors."""
    lengths = [len(configurations(4))] * 4
    assert_close(2.0**14 * sum(lengths) + 4.0**8, 1_114_112.0)
    assert_close(2.0**20 + 2.0**16, 1_114_112.0)
    assert_close(2 * 2.0**22 + 2.0**16, 8_454_144.0)


@equation("groups-margin-by-hand")
def test_solution_of_the_margin():
    """At this margin 2^n e^(ℓ−87)/Z̃ is a millionth."""
    margin = 87 - 24 * math.log(2) - 6 * math.log(10)
    assert_close(2**24 * math.exp(margin - 87) * 1e6, 1.0)
    assert_close(round(margin, 2), 56.55)


@equation("groups-held-by-hand")
def test_solution_of_the_held_unit():
    for extra in (0.0, -1.3, 2.0):
        J = np.zeros((3, 3))
        J[0, 1] = J[1, 0] = J[0, 2] = J[2, 0] = 0.5 * math.log(3)
        J[1, 2] = J[2, 1] = extra
        weights = all_weights(J, np.array([0.5 * math.log(2), 0, 0]))
        up = log_sum(weights[configurations(3)[:, 0] == 1])
        assert_close(math.exp(up - log_sum(weights)), 2 / 3)
    assert_close(math.sqrt(2) / (math.sqrt(2) + 1 / math.sqrt(2)), 2 / 3)


@equation("groups-symmetry-by-hand")
def test_solution_of_the_symmetry():
    J, _ = parameters(6)
    whole = log_sum(all_weights(J, np.zeros(6)))
    rest = log_sum(all_weights(J[1:, 1:], J[1:, 0]))
    assert_close(40 + rest - whole, 40 - math.log(2))
    assert_close(round(40 - math.log(2), 4), 39.3069)
