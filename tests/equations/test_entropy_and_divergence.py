"""The equations of probability/entropy-and-divergence, against plain Python sums, mpmath and quadrature."""

import itertools
import math
from fractions import Fraction

import mpmath
import pytest
import sympy
import torch
from harness import assert_at_most, assert_close, assert_zero, equation
from scipy.integrate import quad
from torch.distributions import Exponential, Normal

from lecturecode import entropy, js, kl, tv

LOADED = [Fraction(w, 12) for w in (1, 2, 2, 2, 2, 3)]
FAIR = [Fraction(1, 6)] * 6
NO_SIX = [Fraction(1, 5)] * 5 + [Fraction(0)]
SKEW = [Fraction(w, 32) for w in (1, 2, 4, 5, 8, 12)]
DICE = [LOADED, FAIR, NO_SIX, SKEW]
PAIRS = [(p, q) for p in DICE for q in (LOADED, FAIR, SKEW)]
SPINS = [[Fraction(w, 20) for w in row] for row in ((8, 2), (1, 9))]
OTHER = [[Fraction(w, 20) for w in row] for row in ((9, 3), (6, 2))]
# Columns sum to one: a noisy channel, a function (parity), a permutation.
NOISY = [[Fraction(3, 4), Fraction(1, 8), Fraction(0)], [Fraction(1, 4), Fraction(1, 2), Fraction(2, 3)],
         [Fraction(0), Fraction(3, 8), Fraction(1, 3)]]  # fmt: skip
PARITY = [[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1]]
SHUFFLE = [[int(j == (5 * i + 2) % 6) for j in range(6)] for i in range(6)]


def tensor(values) -> torch.Tensor:
    """Fractions, mpmath numbers or nested lists of them as float64."""
    if isinstance(values, list | tuple):
        return torch.stack([tensor(v) for v in values])
    return torch.tensor(float(values), dtype=torch.float64)


def ratio(a, b):
    a, b = Fraction(a), Fraction(b)
    return mpmath.mpf(a.numerator * b.denominator) / (a.denominator * b.numerator)


def exact_entropy(p):
    return mpmath.fsum(ratio(w, 1) * mpmath.log(ratio(1, w)) for w in p if w)


def exact_kl(p, q):
    return mpmath.fsum(ratio(a, 1) * mpmath.log(ratio(a, b)) for a, b in zip(p, q, strict=True) if a)


def applied(kernel, p) -> list:
    return [sum((Fraction(k) * w for k, w in zip(row, p, strict=True)), Fraction(0)) for row in kernel]


def flat(table) -> list:
    return [w for row in table for w in row]


def rows(table) -> list:
    return [sum(row) for row in table]


def columns(table) -> list:
    return [sum(column) for column in zip(*table, strict=True)]


@pytest.fixture(autouse=True)
def fifty_digits():
    """Enough for every cancellation below."""
    with mpmath.workdps(50):
        yield


@equation("expectation")
def test_expectation_is_the_mean_over_twelve_equally_likely_sides():
    """A twelve-sided die whose sides carry the faces in proportion has the mean of the weighted sum."""
    sides = [1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 6]
    for f in (lambda x: x, lambda x: x * x, math.log):
        weighted = (tensor(LOADED) * torch.tensor([f(x) for x in range(1, 7)], dtype=torch.float64)).sum()
        assert_close(weighted, sum(f(x) for x in sides) / 12)


@equation("convexity")
def test_no_chord_runs_below_a_convex_function():
    """Four functions on a grid of chords; equal at both ends of a chord, and for a straight line everywhere."""
    functions = [lambda u: -math.log(u), lambda u: u * math.log(u), math.exp, lambda u: 3 - 2 * u]
    for f in functions:
        below, chord = [], []
        for a, b, share in itertools.product((0.2, 1.0, 3.5), (0.1, 2.0, 6.0), (0.0, 0.3, 0.8, 1.0)):
            below.append(f(share * a + (1 - share) * b))
            chord.append(share * f(a) + (1 - share) * f(b))
        assert_at_most(below, chord)


@equation("chord-slopes")
def test_slopes_of_chords_grow():
    """Strictly for −log, u log u and exp; with equality for a straight line, where the bound is tight."""
    functions = [lambda u: -math.log(u), lambda u: u * math.log(u), math.exp]
    triples = [(0.1, 0.4, 2.0), (1.0, 1.5, 1.6), (0.3, 5.0, 6.0)]
    strict = [_slopes(f, *triple) for f in functions for triple in triples]
    assert all(left < right for left, right in strict)
    line = [_slopes(lambda u: 3 - 2 * u, *triple) for triple in triples]
    assert_at_most([left for left, _ in line + strict], [right for _, right in line + strict])


def _slopes(f, a, middle, b):
    return (f(middle) - f(a)) / (middle - a), (f(b) - f(middle)) / (b - middle)


@equation("supporting-line")
def test_the_tangent_supports_a_convex_function():
    """With s the derivative, and for |u − 1| at its corner with slopes between −1 and 1; tight at the mean."""
    cases = [
        (lambda u: -math.log(u), lambda c: -1 / c),
        (lambda u: u * math.log(u), lambda c: math.log(c) + 1),
        (math.exp, math.exp),
    ]
    grid = [0.05, 0.5, 1.0, 1.7, 3.0, 9.0]
    for f, slope in cases:
        for c in grid:
            assert_at_most([f(c) + slope(c) * (u - c) for u in grid], [f(u) for u in grid])
    for slope in (-1.0, -0.3, 0.0, 0.8, 1.0):
        assert_at_most([slope * (u - 1) for u in grid], [abs(u - 1) for u in grid])


@equation("jensen")
def test_jensen_in_the_finite_case():
    """Strict for spread values under strictly convex functions; equal for constants and for a straight line."""
    values, constant = (0.5, 2.0, 5.5, 1.0, 1.0, 3.0), (1.7,) * 6
    for f in (lambda u: -math.log(u), lambda u: u * math.log(u), math.exp):
        pairs = [_jensen(f, p, values) for p in DICE]
        assert all(right - left > 1e-3 for left, right in pairs)
        pairs += [_jensen(f, p, constant) for p in DICE]
        assert_at_most([left for left, _ in pairs], [right for _, right in pairs])
    for p in DICE:
        left, right = _jensen(lambda u: 3 - 2 * u, p, values)
        assert_close(left, right)


def _jensen(f, p, values):
    mean = math.fsum(float(w) * u for w, u in zip(p, values, strict=True))
    return f(mean), math.fsum(float(w) * f(u) for w, u in zip(p, values, strict=True))


@equation("jensen-log")
def test_log_of_the_mean_is_above_the_mean_of_the_log():
    """For six values under four dice, as the inequality of two means: the geometric is below the arithmetic."""
    values = [Fraction(1, 2), 2, Fraction(11, 2), 1, 1, 3]
    geometric = [mpmath.fprod(ratio(u, 1) ** ratio(w, 1) for u, w in zip(values, p, strict=True)) for p in DICE]
    arithmetic = [ratio(sum(w * u for u, w in zip(values, p, strict=True)), 1) for p in DICE]
    assert all(g < a - mpmath.mpf("1e-3") for g, a in zip(geometric, arithmetic, strict=True))
    assert_at_most(tensor([mpmath.log(g) for g in [*geometric, 3]]), tensor([mpmath.log(a) for a in [*arithmetic, 3]]))


@equation("surprise-additive")
def test_surprise_at_independent_events_adds():
    """Products in exact fractions, logarithms of them in mpmath, against sums in float64."""
    for a, b in itertools.product(set(LOADED), set(SKEW)):
        assert_close(-math.log(a) - math.log(b), float(-mpmath.log(ratio(a * b, 1))))


@equation("entropy")
def test_entropy_is_the_mean_surprise():
    """The library against the sum in exact fractions and mpmath; a missing face counts for nothing."""
    assert_close(entropy(tensor(DICE)), tensor([exact_entropy(p) for p in DICE]))
    twelve = [Fraction(1, 12)] * 12  # log 12 less what twelve sides with repeated faces hide
    hidden = float(exact_entropy(twelve)) - (4 * math.log(2) * 2 + 3 * math.log(3)) / 12
    assert_close(entropy(tensor(LOADED)), hidden)


@equation("entropy-bounds")
def test_entropy_lies_between_zero_and_log_k():
    """Tight below at a point mass, above at the uniform distribution; strictly between elsewhere."""
    point = [Fraction(0)] * 5 + [Fraction(1)]
    values = tensor([exact_entropy(p) for p in [point, *DICE]])
    assert_at_most(-values, 0.0)
    assert_at_most(values, math.log(6))
    assert all(0 < v < math.log(6) - 1e-3 for v in (values[1], values[3], values[4]))
    assert_close(entropy(tensor([point, FAIR])), [0.0, math.log(6)])


@equation("entropy-chain-rule")
def test_entropy_of_a_pair_splits():
    """A table of two spins, in both orders, in exact fractions; independent entropies add."""
    for table in (SPINS, OTHER, [list(column) for column in zip(*SPINS, strict=True)]):
        marginal = rows(table)
        conditional = mpmath.fsum(
            ratio(w, 1) * exact_entropy([c / w for c in row]) for w, row in zip(marginal, table, strict=True)
        )
        assert_close(entropy(tensor(flat(table))), float(exact_entropy(marginal) + conditional))
    product = [a * b for a, b in itertools.product(LOADED, SKEW)]
    assert_close(entropy(tensor(product)), float(exact_entropy(LOADED) + exact_entropy(SKEW)))


@equation("differential-entropy")
def test_differential_entropy_by_quadrature():
    """The library's closed forms against the integral; for a uniform density on [0, a] it is log a.

    Tolerance 1e-9: adaptive quadrature asks for 1e-12 of each integral and promises no more than it estimates.
    """
    exponential = entropy(Exponential(torch.tensor(0.7, dtype=torch.float64)))
    gamma = 1 + float(mpmath.euler) - math.log(2)  # shape 2, rate 2: k − log rate + log Γ(k) + (1 − k) ψ(k)
    for p, closed in (
        (lambda x: 0.7 * math.exp(-0.7 * x), exponential),
        (lambda x: 4 * x * math.exp(-2 * x), gamma),
    ):
        value = quad(lambda x, p=p: -p(x) * math.log(p(x)), 1e-300, 60, epsabs=1e-13, limit=300)[0]
        assert_close(value, closed, tol=1e-9)
    for a in (0.5, 1.0, 3.0):
        assert_close(quad(lambda x, a=a: math.log(a) / a, 0, a)[0], math.log(a))


@equation("differential-entropy-units")
def test_a_change_of_units_adds_a_logarithm():
    """The integral over p(y/c)/c against the library's value for the old units; tolerance 1e-9 (quadrature)."""
    for c in (0.01, 1.0, 1000.0):
        changed = quad(
            lambda y, c=c: -_gauss(y / c, 0.3, 1.2) / c * math.log(_gauss(y / c, 0.3, 1.2) / c),
            -20 * c, 20 * c, epsabs=1e-12, epsrel=1e-12, limit=300, points=[0],
        )[0]  # fmt: skip
        old = entropy(Normal(torch.tensor(0.3, dtype=torch.float64), 1.2))
        assert_close(changed, old + math.log(c), tol=1e-9)


def _gauss(x, mean, sigma):
    return math.exp(-((x - mean) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))


@equation("gaussian-entropy")
def test_entropy_of_a_gaussian():
    """SymPy's integral of −p log p, for any mean and width; and the sign change at 1/√(2πe)."""
    x, mean = sympy.symbols("x mu", real=True)
    sigma = sympy.Symbol("sigma", positive=True)
    p = sympy.exp(-((x - mean) ** 2) / (2 * sigma**2)) / (sigma * sympy.sqrt(2 * sympy.pi))
    log_p = -((x - mean) ** 2) / (2 * sigma**2) - sympy.log(sigma) - sympy.log(2 * sympy.pi) / 2
    integral = sympy.integrate((-p * log_p).subs(x, x + mean), (x, -sympy.oo, sympy.oo))
    closed = sympy.log(2 * sympy.pi * sympy.E * sigma**2) / 2
    assert_zero(sympy.expand_log(integral - closed, force=True))
    assert_close(entropy(Normal(torch.zeros((), dtype=torch.float64), 1 / math.sqrt(2 * math.pi * math.e))), 0.0)


@equation("binned-entropy")
def test_a_ruler_gives_the_differential_entropy_or_more():
    """Equal for a density that is constant between marks; above it for a Gaussian, ever less for a finer ruler."""
    steps, width = [Fraction(1, 2), Fraction(1, 8), Fraction(3, 8)], 0.25  # heights P/width
    constant = -width * math.fsum(float(w) / width * math.log(float(w) / width) for w in steps)
    left, right = [constant], [float(exact_entropy(steps)) + math.log(width)]
    for width in (2.0, 1.0, 0.5):
        marks = [mpmath.ncdf(width * k) for k in range(-60, 61)]
        cells = [b - a for a, b in itertools.pairwise(marks) if b > a]
        left.append(0.5 * math.log(2 * math.pi * math.e))
        right.append(float(-mpmath.fsum(w * mpmath.log(w) for w in cells)) + math.log(width))
    assert_at_most(left, right)
    excess = [b - a for a, b in zip(left, right, strict=True)][1:]
    assert excess[0] > 3 * excess[1] > 9 * excess[2] > 0


@equation("kl-divergence")
def test_kl_is_the_mean_log_ratio():
    """The library against exact fractions and mpmath; infinite where q misses an outcome of p."""
    for p, q in PAIRS:
        assert_close(kl(tensor(p), tensor(q)), float(exact_kl(p, q)))
    assert kl(tensor(FAIR), tensor(NO_SIX)) == math.inf
    assert_close(kl(tensor(NO_SIX), tensor(FAIR)), math.log(6 / 5))


@equation("kl-density")
def test_kl_of_densities_has_no_units():
    """Two exponentials and two Gaussians by quadrature (tolerance 1e-9), in three units, against closed forms."""
    for c in (1e-2, 1.0, 1e3):
        p, q = (lambda x, c=c, r=r: r / c * math.exp(-r * x / c) for r in (2.0, 0.5))
        value = quad(lambda x, p=p, q=q: p(x) * math.log(p(x) / q(x)), 0, 30 * c, epsabs=1e-13, limit=300)[0]
        assert_close(value, math.log(4) + 0.25 - 1, tol=1e-9)
        p, q = (lambda x, c=c, g=g: _gauss(x / c, *g) / c for g in ((1.0, 2.0), (0.0, 3.0)))
        value = quad(lambda x, p=p, q=q: p(x) * math.log(p(x) / q(x)), -40 * c, 40 * c, epsabs=1e-13, limit=300)[0]
        normals = [Normal(torch.tensor(m * c, dtype=torch.float64), s * c) for m, s in ((1.0, 2.0), (0.0, 3.0))]
        assert_close(value, kl(*normals), tol=1e-9)


@equation("kl-partial-sums")
def test_absolute_continuity_does_not_suffice():
    """The sum against its two parts; the first converges, to a limit known in closed form, the second does not."""

    def first(x):
        p = 6 / (mpmath.pi * x) ** 2
        return p * mpmath.log(p)

    c = 6 / mpmath.pi**2
    for n in (10, 100, 1000):
        x = torch.arange(1, n + 1, dtype=torch.float64)
        whole = (6 / (math.pi * x) ** 2 * (math.log(6 / math.pi**2) - 2 * x.log() + x * math.log(2))).sum()
        convergent = mpmath.fsum(first(k) for k in range(1, n + 1))
        assert_close(whole, float(convergent + c * mpmath.log(2) * mpmath.harmonic(n)))
    # Euler and Maclaurin: Σ_{x>n} f = ∫ f − f(n)/2 − f′(n)/12, here to 1e-15; and Σ x⁻² log x = −ζ′(2)
    rest = c * (mpmath.log(c) - 2 * mpmath.log(1000) - 2) / 1000 - first(1000) / 2 - mpmath.diff(first, 1000) / 12
    assert_close(float(convergent + rest), float(mpmath.log(c) + 2 * c * mpmath.zeta(2, derivative=1)))


@equation("kl-ratio-bound")
def test_the_largest_ratio_bounds_kl():
    """Tight where the ratio is constant: a die without a six against a fair one."""
    largest = [max(a / b for a, b in zip(p, q, strict=True) if a) for p, q in PAIRS]
    divergences = torch.stack([kl(tensor(p), tensor(q)) for p, q in PAIRS])
    assert_at_most(divergences, tensor([mpmath.log(ratio(w, 1)) for w in largest]))
    assert_at_most(kl(tensor(NO_SIX), tensor(FAIR)), math.log(1.2))


@equation("kl-nonnegative")
def test_kl_is_not_negative_and_zero_only_at_equality():
    """All pairs of dice, and pairs that differ by 2⁻¹⁰ … 2⁻⁴⁰ on two faces: positive, and zero at p = q."""
    for p, q in PAIRS:
        exact = exact_kl(p, q)
        assert (exact == 0) == (p == q)
        assert exact >= 0
    assert_at_most(-tensor([exact_kl(p, q) for p, q in PAIRS]), 0.0)
    assert_close(kl(tensor(DICE), tensor(DICE)), torch.zeros(4))
    for power in (10, 20, 30, 40):  # exact in binary, so that both sides still sum to one
        near = tensor(SKEW) + 2.0**-power * torch.tensor([1, 0, 0, 0, 0, -1], dtype=torch.float64)
        assert kl(near, tensor(SKEW)) > 0


@equation("kl-by-jensen")
def test_each_step_of_the_proof_by_jensen():
    """The step is tight exactly for a constant ratio on the support; then the logarithm is that of q's weight there."""
    left, middle, outside = [], [], []
    for p, q in PAIRS:
        support = [(a, b) for a, b in zip(p, q, strict=True) if a]
        turned = mpmath.fsum(ratio(a, 1) * mpmath.log(ratio(b, a)) for a, b in support)
        inside = sum((a * (b / a) for a, b in support), Fraction(0))
        assert inside == sum(b for _, b in support)
        assert_close(-kl(tensor(p), tensor(q)), float(turned))
        left.append(turned)
        middle.append(mpmath.log(ratio(inside, 1)))
        outside.append(float(inside))
    assert_at_most(tensor(left), tensor(middle))
    assert_at_most(tensor(middle), 0.0)
    p, q = tensor(NO_SIX), tensor(FAIR)
    assert_close(-kl(p, q), math.log(5 / 6))
    assert min(outside) < 1


@equation("log-tangent")
def test_the_tangent_of_the_logarithm():
    """On a grid over sixteen decades, tight at one; the difference has the sign of its derivative's integral."""
    grid = [10.0**k for k in range(-8, 9)] + [0.9, 1.1]
    assert_at_most([math.log(u) for u in grid], [u - 1 for u in grid])
    assert [u for u in grid if math.log(u) == u - 1] == [1.0]
    u = sympy.Symbol("u", positive=True)
    assert_zero(sympy.diff(u - 1 - sympy.log(u), u) - (1 - 1 / u))


@equation("kl-terms")
def test_kl_as_a_sum_of_nonnegative_terms():
    """Both forms in exact fractions and mpmath against the library; every term is at least zero."""
    for p, q in [*PAIRS, (NO_SIX, NO_SIX)]:
        shifted = [
            (ratio(a, 1) * mpmath.log(ratio(a, b)) if a else mpmath.mpf(0)) + ratio(b - a, 1)
            for a, b in zip(p, q, strict=True)
        ]
        brackets = [ratio(a, 1) * (ratio(b, a) - 1 - mpmath.log(ratio(b, a))) for a, b in zip(p, q, strict=True) if a]
        rest = [ratio(b, 1) for a, b in zip(p, q, strict=True) if not a]
        assert min(*shifted, *brackets) >= 0
        assert_close(kl(tensor(p), tensor(q)), float(mpmath.fsum(shifted)))
        assert_close(kl(tensor(p), tensor(q)), float(mpmath.fsum(brackets + rest)))


@equation("kl-quadratic")
def test_a_small_divergence_is_quadratic():
    """The exact quotient at δ = 1e-20, whose next term is of order 1e-20; the library at exact powers of two."""
    q = [Fraction(w, 16) for w in (3, 3, 3, 3, 2, 2)]
    shift = [1, 0, 0, 0, 0, -1]
    limit = 0.5 * math.fsum(d * d / float(w) for d, w in zip(shift, q, strict=True))
    with mpmath.workdps(90):
        tiny = Fraction(1, 10**20)
        near = exact_kl([w + tiny * d for w, d in zip(q, shift, strict=True)], q) * mpmath.mpf(10) ** 40
    assert_close(float(near), limit)
    for power in (33, 40, 46):
        p = tensor(q) + 2.0**-power * torch.tensor(shift, dtype=torch.float64)
        exact = exact_kl([Fraction(v) for v in p.tolist()], q)
        assert_close(kl(p, tensor(q)), float(exact), tol=1e-14, relative=True)
        assert abs((p * (p / tensor(q)).log()).sum() - float(exact)) > float(exact)  # the textbook sum has no digit


@equation("excess-series")
def test_the_series_of_r_minus_log1p():
    """Two hundred terms in mpmath against r − log(1 + r), from r = −0.9 to 3, and relative to a tiny value."""
    for r in ("-0.9", "-0.3", "-1e-10", "1e-15", "0.2", "1", "3"):
        r = mpmath.mpf(r)
        s = r / (2 + r)
        series = 2 * (s**2 / (1 - s) - mpmath.fsum(s**k / k for k in range(3, 403, 2)))
        assert_close(float(series), float(r - mpmath.log1p(r)), relative=True)


@equation("cross-entropy")
def test_cross_entropy_splits():
    """A float64 sum of −p log q against the entropy and the divergence in mpmath."""
    for p, q in PAIRS:
        cross = -(tensor(p) * tensor(q).log()).sum()
        assert_close(cross, float(exact_entropy(p) + exact_kl(p, q)))


@equation("tv-distance")
def test_total_variation_is_the_best_question():
    """All 64 events in exact fractions; half the sum; the library; and the triangle inequality."""
    distance = {}
    for (i, p), (k, q) in itertools.product(enumerate(DICE), repeat=2):
        gaps = [a - b for a, b in zip(p, q, strict=True)]
        events = itertools.product((0, 1), repeat=6)
        best = max(sum(g * chosen for g, chosen in zip(gaps, event, strict=True)) for event in events)
        assert best == sum(abs(g) for g in gaps) / 2
        assert_close(tv(tensor(p), tensor(q)), float(best))
        distance[i, k] = best
    assert all(distance[i, k] <= distance[i, j] + distance[j, k] for i, j, k in itertools.product(range(4), repeat=3))


@equation("js-divergence")
def test_jensen_shannon_is_the_mean_divergence_from_the_midpoint():
    """The library against exact fractions; symmetric; also where a face is missing."""
    for p, q in [*PAIRS, (FAIR, NO_SIX)]:
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        exact = float((exact_kl(p, middle) + exact_kl(q, middle)) / 2)
        assert_close(js(tensor(p), tensor(q)), exact)
        assert_close(js(tensor(q), tensor(p)), exact)


@equation("js-bound")
def test_jensen_shannon_is_at_most_log_two():
    """Tight above for disjoint supports, below for equal distributions, strictly between for the dice."""
    ends = torch.eye(2, dtype=torch.float64)
    first, second = (tensor(list(side)) for side in zip(*PAIRS, strict=True))
    assert_at_most(-js(first, second), 0.0)
    values = torch.cat([js(first, second), js(ends[:1], ends[1:])])
    assert_at_most(values, math.log(2))
    assert (values[:-1] < math.log(2) - 0.1).all()


@equation("joint-log-ratio")
def test_the_log_ratio_of_a_pair_is_a_sum():
    """Entry by entry for two tables: products in fractions, logarithms in float64."""
    for i, k in itertools.product(range(2), repeat=2):
        p, q = SPINS[i][k], OTHER[i][k]
        p_x, q_x = rows(SPINS)[i], rows(OTHER)[i]
        split = math.log(p_x / q_x) + math.log((p / p_x) / (q / q_x))
        assert_close(split, float(mpmath.log(ratio(p, q))))


@equation("kl-chain-rule")
def test_kl_of_a_pair_splits_in_either_order():
    """The library's joint divergence against marginal and conditional sums in fractions; the mean is over p, not q."""
    turned = [[list(column) for column in zip(*table, strict=True)] for table in (SPINS, OTHER)]
    for p, q in ((SPINS, OTHER), turned, turned[::-1]):
        parts = [exact_kl([c / a for c in r], [c / b for c in s])
                 for r, s, a, b in zip(p, q, rows(p), rows(q), strict=True)]  # fmt: skip
        hidden = mpmath.fsum(ratio(w, 1) * part for w, part in zip(rows(p), parts, strict=True))
        assert_close(kl(tensor(flat(p)), tensor(flat(q))), float(exact_kl(rows(p), rows(q)) + hidden))
        wrong = mpmath.fsum(ratio(w, 1) * part for w, part in zip(rows(q), parts, strict=True))
        assert abs(wrong - hidden) > mpmath.mpf("1e-4")


@equation("kl-additive")
def test_evidence_adds_over_independent_draws():
    """All 6, 36 and 216 sequences of throws, their probabilities in fractions."""
    for draws in (1, 2, 3):
        p, q = ([math.prod(ws) for ws in itertools.product(die, repeat=draws)] for die in (SKEW, FAIR))
        assert_close(kl(tensor(p), tensor(q)), draws * float(exact_kl(SKEW, FAIR)))


@equation("mutual-information")
def test_mutual_information_is_a_divergence_in_two_forms():
    """From the product of the marginals, and as the mean over rows; zero for an independent table."""
    independent = [[a * b for b in (Fraction(1, 4), Fraction(3, 4))] for a in (Fraction(1, 3), Fraction(2, 3))]
    for table in (SPINS, OTHER, independent):
        p_x, p_h = rows(table), columns(table)
        product = [a * b for a, b in itertools.product(p_x, p_h)]
        by_rows = mpmath.fsum(
            ratio(w, 1) * exact_kl([c / w for c in row], p_h) for w, row in zip(p_x, table, strict=True)
        )
        assert_close(kl(tensor(flat(table)), tensor(product)), float(by_rows))
        assert (by_rows == 0) == (table in (independent, OTHER))


@equation("mutual-information-entropies")
def test_mutual_information_is_a_difference_of_entropies():
    """Both differences in mpmath against the library's divergence from independence."""
    for table in (SPINS, OTHER):
        p_x, p_h = rows(table), columns(table)
        information = kl(tensor(flat(table)), tensor([a * b for a, b in itertools.product(p_x, p_h)]))
        left = mpmath.fsum(ratio(w, 1) * exact_entropy([c / w for c in row]) for w, row in zip(p_x, table, strict=True))
        assert_close(information, float(exact_entropy(p_x) + exact_entropy(p_h) - exact_entropy(flat(table))))
        assert_close(information, float(exact_entropy(p_h) - left))


@equation("markov-kernel")
def test_a_kernel_with_columns_of_sum_one_keeps_probability():
    """The sum over j of K_ij p_j against counting paths in fractions; with rows of sum one instead, weight is lost."""
    p = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]
    assert columns(NOISY) == [1, 1, 1]
    paths = [Fraction(0)] * 3
    for j, i in itertools.product(range(3), repeat=2):
        paths[i] += p[j] * NOISY[i][j]
    assert_close(tensor(NOISY) @ tensor(p), tensor(paths))
    assert sum(paths) == 1
    turned = [list(column) for column in zip(*NOISY, strict=True)]
    assert sum(applied(turned, p)) != 1


@equation("data-processing")
def test_processing_never_raises_kl():
    """A noisy channel and the parity of dice; tight for a permutation."""
    p, q = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)], [Fraction(1, 5), Fraction(1, 5), Fraction(3, 5)]
    cases = [(NOISY, p, q), (NOISY, q, p)] + [(PARITY, *pair) for pair in PAIRS] + [(SHUFFLE, *pair) for pair in PAIRS]
    after = torch.stack([kl(tensor(applied(kernel, a)), tensor(applied(kernel, b))) for kernel, a, b in cases])
    before = tensor([exact_kl(a, b) for _, a, b in cases])
    assert_at_most(after, before)
    assert (after[:2] < before[:2] - 0.05).all()
    assert_close(after[-len(PAIRS) :], before[-len(PAIRS) :])


@equation("data-processing-gap")
def test_what_processing_loses():
    """The divergence between the two backward conditionals, by Bayes in fractions, for a channel and for the parity."""
    p, q = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)], [Fraction(1, 5), Fraction(1, 5), Fraction(3, 5)]
    for kernel, a, b in [(NOISY, p, q), (NOISY, q, p), (PARITY, LOADED, FAIR), (PARITY, NO_SIX, SKEW)]:
        out_a, out_b = applied(kernel, a), applied(kernel, b)
        lost = mpmath.fsum(
            ratio(out_a[i], 1)
            * exact_kl([k * w / out_a[i] for k, w in zip(row, a, strict=True)],
                       [k * w / out_b[i] for k, w in zip(row, b, strict=True)])
            for i, row in enumerate(kernel)
        )  # fmt: skip
        assert lost > mpmath.mpf("1e-3")
        assert_close(kl(tensor(a), tensor(b)), float(exact_kl(out_a, out_b) + lost))


@equation("sufficient-statistic")
def test_the_number_of_heads_loses_nothing():
    """Binomial probabilities in fractions, N from 1 to 8, against N times the divergence of one toss."""
    a, b = Fraction(7, 10), Fraction(2, 5)
    for tosses in (1, 2, 5, 8):
        p, q = ([math.comb(tosses, k) * r**k * (1 - r) ** (tosses - k) for k in range(tosses + 1)] for r in (a, b))
        one = 0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6)
        assert_close(kl(tensor(p), tensor(q)), tosses * one)


@equation("kl-to-stationary")
def test_the_divergence_from_a_stationary_distribution_never_rises():
    """A drifting particle on six levels, whose entropy falls in the end; tight for a permutation of a uniform one."""
    up, down = Fraction(1, 5), Fraction(2, 5)
    drift = [[up if i == j + 1 else down if i == j - 1 else Fraction(0) for j in range(6)] for i in range(6)]
    for j, total in enumerate(columns(drift)):
        drift[j][j] = 1 - total
    weights = [Fraction(1, 2**k) for k in range(6)]
    star = [w / sum(weights) for w in weights]
    assert applied(drift, star) == star
    now, later, spread = [], [], []
    for kernel, stationary, p in ((drift, star, [*[Fraction(0)] * 5, Fraction(1)]), (SHUFFLE, FAIR, SKEW)):
        for _ in range(25):
            following = applied(kernel, p)
            now.append(exact_kl(p, stationary))
            later.append(exact_kl(following, stationary))
            spread.append(exact_entropy(p))
            p = following
    assert_at_most(tensor(later), tensor(now))
    assert max(spread[:25]) > spread[24] + mpmath.mpf("0.01")
    assert_close(tensor(later[25:]), tensor(now[25:]))


@equation("kl-two-outcomes")
def test_one_question_keeps_at_most_the_whole():
    """The best event of each pair of dice, its answer's divergence by hand; tight for a die against a coin-like one."""
    left, right = [], []
    twofold = ([Fraction(1, 4)] * 3 + [Fraction(1, 12)] * 3, FAIR)  # the ratio takes two values: nothing is lost
    for p, q in [*PAIRS, twofold]:
        event = [a > b for a, b in zip(p, q, strict=True)]
        a, b = (sum((w for w, chosen in zip(die, event, strict=True) if chosen), Fraction(0)) for die in (p, q))
        left.append(float(exact_kl([a, 1 - a], [b, 1 - b])))
        right.append(kl(tensor(p), tensor(q)))
    assert_at_most(left, torch.stack(right))
    assert_close(left[-1], right[-1])


@equation("pinsker-derivative")
def test_the_derivative_in_pinskers_proof():
    """By SymPy, for all a and b."""
    a, b = sympy.symbols("a b", positive=True)
    two = a * sympy.log(a / b) + (1 - a) * sympy.log((1 - a) / (1 - b))
    derivative = sympy.diff(two - 2 * (a - b) ** 2, b)
    assert_zero(derivative - (b - a) * (1 / (b * (1 - b)) - 4))


@equation("pinsker")
def test_pinsker_is_a_bound_whose_factor_is_the_best():
    """As a ratio, 2 TV²/KL ≤ 1, for dice and coins; at a coin of ½ + 2⁻¹⁷ it is within 1e-10 of one, so tight."""
    pairs = [(tensor(p), tensor(q)) for p, q in PAIRS if p != q]
    for shift in (0.4, 0.1, 2.0**-17):
        pairs.append((tensor([0.5 + shift, 0.5 - shift]), tensor([0.5, 0.5])))
    exact = [exact_kl([Fraction(v) for v in p.tolist()], [Fraction(v) for v in q.tolist()]) for p, q in pairs[-3:]]
    exact = [exact_kl(p, q) for p, q in PAIRS if p != q] + exact
    ratios = [2 * float(tv(p, q)) ** 2 / float(value) for (p, q), value in zip(pairs, exact, strict=True)]
    assert_at_most(ratios, 1.0)
    assert max(ratios[:-3]) < 0.99
    assert_close(ratios[-1], 1 - (2 / 3) * 2.0**-34)


@equation("missing-face-js")
def test_the_missing_face():
    """The closed form of the solution against the divergences from the midpoint in fractions."""
    middle = [(a + b) / 2 for a, b in zip(NO_SIX, FAIR, strict=True)]
    closed = 0.5 * math.log(12 / 11) + 0.5 * (5 / 6 * math.log(10 / 11) + math.log(2) / 6)
    assert_close(closed, float((exact_kl(NO_SIX, middle) + exact_kl(FAIR, middle)) / 2))
    assert_close(js(tensor(NO_SIX), tensor(FAIR)), closed)


@equation("exponential-entropy")
def test_entropy_of_an_exponential():
    """SymPy's integral for any mean."""
    x, mean = sympy.symbols("x mu", positive=True)
    p = sympy.exp(-x / mean) / mean
    integral = sympy.integrate(p * (sympy.log(mean) + x / mean), (x, 0, sympy.oo))
    assert_zero(integral - 1 - sympy.log(mean))


@equation("parity-odd")
def test_probability_of_an_odd_number_of_heads():
    """The sum of the odd binomial probabilities in fractions."""
    for heads, tosses in itertools.product((Fraction(7, 10), Fraction(1, 2), Fraction(1, 9)), (1, 3, 6)):
        odd = sum(math.comb(tosses, k) * heads**k * (1 - heads) ** (tosses - k) for k in range(1, tosses + 1, 2))
        assert_close(0.5 * (1 - (1 - 2 * float(heads)) ** tosses), float(odd))


@equation("two-flips")
def test_two_flips():
    """The square of the channel's matrix."""
    for flip in (0.0, 0.1, 0.5, 1.0):
        channel = torch.tensor([[1 - flip, flip], [flip, 1 - flip]], dtype=torch.float64)
        assert_close((channel @ channel)[0, 1], 2 * flip * (1 - flip))
