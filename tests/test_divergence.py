"""Entropy and divergences against mpmath (50 digits) at 1e-12 relative, also where they are tiny or huge."""

# pyright: reportOptionalMemberAccess=false

import itertools
import math

import mpmath
import pytest
import torch
from mpmath import mp
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from lecturecode import entropy, js, kl, seeded, tv

F64 = torch.float64
STEPS = (1e-3, 1e-6, 1e-9, 1e-12)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6}


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


def f64(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def relative(found: torch.Tensor, exact) -> float:
    """|found/exact − 1|, with the stored digits of `found` taken as they are."""
    return float(abs(mp.mpf(found.item()) / exact - 1)) if exact else abs(found.item())


def exact_kl(p, q):
    """Σ p log(p/q) over the stored numbers, with the part that vanishes when both sum to exactly one."""
    pairs = [(mp.mpf(a), mp.mpf(b)) for a, b in zip(p, q, strict=True)]
    return mp.fsum((a * mp.log(a / b) if a else mp.mpf(0)) - a + b for a, b in pairs)


def dyadic_pair(k: int, exponent: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two float64 vectors that both sum to exactly one and differ by a few parts in 2^exponent."""
    weights = torch.randint(2**20, 2**24, (k,), generator=seeded(seed)).tolist()
    unit = 2**48
    numbers = [w * (unit // sum(weights)) for w in weights]
    numbers[0] += unit - sum(numbers)
    moves = torch.randint(-7, 8, (k,), generator=seeded(seed + 100)).tolist()
    moves[-1] -= sum(moves)
    moved = [n + m * 2 ** (44 - exponent) for n, m in zip(numbers, moves, strict=True)]
    assert sum(numbers) == sum(moved) == unit
    assert min(moved) > 0
    assert any(moves)
    return f64(*(n / unit for n in numbers)), f64(*(n / unit for n in moved))


def softmax_pair(k: int, step: float, dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = seeded(seed)
    y = torch.randn(k, generator=rng, dtype=F64)
    return (y.softmax(-1).to(dtype), (y + step * torch.randn(k, generator=rng, dtype=F64)).softmax(-1).to(dtype))


# --- probability vectors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [10, 20, 30, 40, 44])
@pytest.mark.parametrize("k", [2, 5, 12])
def test_kl_of_vectors_that_sum_to_exactly_one(k, exponent):
    p, q = dyadic_pair(k, exponent, seed=k)
    exact = mp.fsum(mp.mpf(a) * mp.log(mp.mpf(a) / mp.mpf(b)) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    assert relative(kl(p, q), exact) < 1e-12


@pytest.mark.parametrize("step", [3.0, 1.0, 0.1, *STEPS])
def test_kl_of_vectors(device, dtype, step):
    step = step if dtype == F64 or step > 1e-6 else 1e-5
    p, q = (v.to(device) for v in softmax_pair(9, step, dtype))
    found = kl(p, q)
    assert found.dtype == dtype
    assert found.device == p.device
    assert relative(found, exact_kl(p.tolist(), q.tolist())) < TOLERANCE[dtype]


@pytest.mark.parametrize("ratio", [0.79, 0.799999999, 0.800000001, 0.81, 1.19, 1.1999999999, 1.2000000001, 1.21])
def test_the_two_branches_meet(ratio):
    p = f64(0.25, 0.75)
    q = f64(0.25 * ratio, 1 - 0.25 * ratio)
    assert relative(kl(p, q), exact_kl(p.tolist(), q.tolist())) < 1e-13


@pytest.mark.parametrize("tiny", [1e-3, 1e-8, 1e-15, 1e-17, 1e-100, 1e-300, 5e-324])
def test_one_side_tiny_is_finite_and_exact(tiny):
    p, q = f64(0.5, 0.5), f64(tiny, 1 - tiny)
    assert relative(kl(p, q), exact_kl(p.tolist(), q.tolist())) < 1e-12
    assert relative(kl(q, p), exact_kl(q.tolist(), p.tolist())) < 1e-12


def test_one_side_tiny_in_float32():
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([1e-40, 1.0])
    assert relative(kl(p, q), exact_kl(p.tolist(), q.tolist())) < 5e-6
    assert relative(kl(q, p), exact_kl(q.tolist(), p.tolist())) < 5e-6


def test_support_mismatch_is_infinite_and_empty_outcomes_cost_nothing(device, dtype):
    def v(*values):
        return torch.tensor(values, dtype=dtype, device=device)

    assert kl(v(0.5, 0.5), v(1.0, 0.0)).item() == math.inf
    assert kl(v(1.0, 0.0), v(0.5, 0.5)).item() == pytest.approx(math.log(2), rel=1e-6)
    assert kl(v(1.0, 0.0), v(1.0, 0.0)).item() == 0
    assert kl(v(0.0, 0.3, 0.7, 0.0), v(0.0, 0.7, 0.3, 0.0)).item() == pytest.approx(0.4 * math.log(7 / 3), rel=1e-5)
    assert kl(v(1.0, 0.0), v(0.0, 1.0)).item() == math.inf


def test_no_pair_of_sparse_vectors_gives_nan():
    corners = [f64(*c) for c in itertools.product([0.0, 5e-324, 1e-300, 0.5, 1.0], repeat=3) if abs(sum(c) - 1) < 1e-9]
    for p, q in itertools.product(corners, corners):
        outside = bool(((p > 0) & (q == 0)).any())
        assert kl(p, q).isinf().item() == outside
        assert kl(p, q) >= 0
        assert 0 <= js(p, q) <= math.log(2) + 1e-15
        assert 0 <= tv(p, q) <= 1


@pytest.mark.parametrize("step", [3.0, 0.1, *STEPS])
def test_js_and_tv(device, dtype, step):
    step = step if dtype == F64 or step > 1e-6 else 1e-5
    p, q = (v.to(device) for v in softmax_pair(7, step, dtype))
    a, b = ([mp.mpf(x) for x in v.tolist()] for v in (p, q))
    middle = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
    assert relative(js(p, q), (exact_kl(a, middle) + exact_kl(b, middle)) / 2) < TOLERANCE[dtype]
    assert relative(tv(p, q), mp.fsum(abs(x - y) for x, y in zip(a, b, strict=True)) / 2) < TOLERANCE[dtype]
    assert torch.equal(js(p, q), js(q, p)) or relative(js(p, q), mp.mpf(js(q, p).item())) < TOLERANCE[dtype]


def test_js_of_disjoint_vectors_is_log_two():
    assert js(f64(1, 0), f64(0, 1)).item() == pytest.approx(math.log(2), rel=1e-15)
    assert js(f64(0.3, 0.7, 0, 0), f64(0, 0, 0.6, 0.4)).item() == pytest.approx(math.log(2), rel=1e-15)


def test_batches_and_broadcasting():
    rng = seeded(3)
    p = torch.randn(4, 1, 6, generator=rng, dtype=F64).softmax(-1)
    q = torch.randn(5, 6, generator=rng, dtype=F64).softmax(-1)
    for divergence in (kl, js, tv):
        table = divergence(p, q)
        assert table.shape == (4, 5)
        for i, j in itertools.product(range(4), range(5)):
            assert torch.equal(table[i, j], divergence(p[i, 0], q[j]))
    assert entropy(p).shape == (4, 1)


@pytest.mark.parametrize("divergence", [kl, js, lambda p, q: entropy(p) + 0 * q.sum()], ids=["kl", "js", "entropy"])
@pytest.mark.parametrize("step", [1.0, 1e-3])
def test_gradients_to_second_order(divergence, step):
    rng = seeded(8)
    a = torch.randn(4, generator=rng, dtype=F64)
    b = a + step * torch.randn(4, generator=rng, dtype=F64)

    def of_logits(y, z):
        return divergence(y.softmax(-1), z.softmax(-1))

    assert torch.autograd.gradcheck(of_logits, (a.requires_grad_(), b.requires_grad_()))
    assert torch.autograd.gradgradcheck(of_logits, (a, b))


def test_hessian_of_kl_at_equality_is_the_fisher_information():
    y = f64(0.3, -1.0, 0.8)
    hessian = torch.autograd.functional.hessian(lambda z: kl(y.softmax(-1), z.softmax(-1)), y)
    p = y.softmax(-1)
    torch.testing.assert_close(hessian, p.diag() - p[:, None] * p, rtol=1e-13, atol=1e-15)


def test_gradients_are_finite_where_p_is_zero():
    p = f64(0.5, 0.5, 0.0).requires_grad_()
    q = f64(0.2, 0.8, 0.0).requires_grad_()
    (kl(p, q) + js(p, q)).backward()
    assert p.grad.isfinite().all()
    assert q.grad.isfinite().all()


@pytest.mark.parametrize("k", [1, 2, 7])
def test_entropy_of_vectors(device, dtype, k):
    p, _ = softmax_pair(k, 1.0, dtype)
    exact = -mp.fsum(mp.mpf(a) * mp.log(mp.mpf(a)) for a in p.tolist())
    assert relative(entropy(p.to(device)), exact) < TOLERANCE[dtype]


def test_entropy_of_certainty_is_zero_and_of_ignorance_log_k():
    assert entropy(f64(0, 1, 0)).item() == 0
    assert entropy(torch.full((8,), 1 / 8, dtype=F64)).item() == pytest.approx(math.log(8), rel=1e-15)


# --- Gaussians -------------------------------------------------------------------------------------------------------


def matrix(x: torch.Tensor):
    return mpmath.matrix(x.tolist())


def exact_gaussian(mean_p, cov_p, mean_q, cov_q):
    """½ [tr Σ_q⁻¹Σ_p − n − log det Σ_p/det Σ_q + (μ_p − μ_q)ᵀ Σ_q⁻¹ (μ_p − μ_q)] in 50 digits."""
    shift = matrix(mean_p[:, None]) - matrix(mean_q[:, None])
    inverse = cov_q**-1
    product = inverse * cov_p
    trace = mp.fsum(product[i, i] for i in range(cov_p.rows)) - cov_p.rows
    return (trace - mp.log(mpmath.det(cov_p) / mpmath.det(cov_q)) + (shift.T * inverse * shift)[0]) / 2


def diagonal(scale: torch.Tensor):
    return mpmath.diag([mp.mpf(s) ** 2 for s in scale.tolist()])


def triangle(n: int, rng: torch.Generator) -> torch.Tensor:
    return torch.randn(n, n, generator=rng, dtype=F64).tril(-1) + torch.diag(
        0.5 + torch.rand(n, generator=rng, dtype=F64)
    )


@pytest.mark.parametrize("step", [1.0, 0.1, *STEPS])
@pytest.mark.parametrize("n", [1, 4])
def test_diagonal_gaussians(n, step):
    rng = seeded(n)
    mean, scale = torch.randn(n, generator=rng, dtype=F64), 0.5 + torch.rand(n, generator=rng, dtype=F64)
    other_mean, other_scale = (x + step * torch.rand(n, generator=rng, dtype=F64) for x in (mean, scale))
    found = kl(Independent(Normal(mean, scale), 1), Independent(Normal(other_mean, other_scale), 1))
    assert relative(found, exact_gaussian(mean, diagonal(scale), other_mean, diagonal(other_scale))) < 1e-12


@pytest.mark.parametrize(("scale_p", "scale_q"), [*itertools.permutations([1e-100, 1e-9, 1e-3, 1.0, 1e9], 2)])
def test_gaussians_of_very_different_widths(scale_p, scale_q):
    found = kl(Normal(f64(0.0), f64(scale_p)), Normal(f64(0.0), f64(scale_q)))
    ratio = mp.mpf(scale_p) / mp.mpf(scale_q)
    assert relative(found, (ratio**2 - 1 - 2 * mp.log(ratio)) / 2) < 1e-12


@pytest.mark.parametrize("step", [1.0, 0.1, *STEPS])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_full_gaussians_given_by_their_factors(n, step):
    rng = seeded(n + 10)
    factor, mean = triangle(n, rng), torch.randn(n, generator=rng, dtype=F64)
    other, other_mean = factor + 0.2 * step * triangle(n, rng), mean + step * torch.randn(n, generator=rng, dtype=F64)
    found = kl(MultivariateNormal(mean, scale_tril=factor), MultivariateNormal(other_mean, scale_tril=other))
    a, b = matrix(factor), matrix(other)
    assert relative(found, exact_gaussian(mean, a * a.T, other_mean, b * b.T)) < 1e-12


@pytest.mark.parametrize("step", [1.0, 0.1, *STEPS])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_full_gaussians_given_by_their_covariances(n, step):
    rng = seeded(n + 20)
    factor, mean = triangle(n, rng), torch.randn(n, generator=rng, dtype=F64)
    root = torch.randn(n, n, generator=rng, dtype=F64)
    cov = factor @ factor.mT + torch.eye(n, dtype=F64)
    cov, other = cov + cov.mT, cov + cov.mT + 0.2 * step * (root @ root.mT + (root @ root.mT).mT)
    assert torch.equal(cov, cov.mT)
    other_mean = mean + step * torch.randn(n, generator=rng, dtype=F64)
    found = kl(MultivariateNormal(mean, cov), MultivariateNormal(other_mean, other))
    assert relative(found, exact_gaussian(mean, matrix(cov), other_mean, matrix(other))) < 1e-12


@pytest.mark.parametrize("step", [1.0, 2**-10, 2**-20, 2**-40])
@pytest.mark.parametrize("form", ["factor", "covariance"])
def test_mixed_gaussians(form, step):
    """The widths are dyadic, so that σ² is stored exactly and the covariances differ by just what was asked."""
    mean, scale = f64(0.5, -1.0, 2.0), f64(0.75, 1.5, 2.0)
    off = step * f64((0, 0, 0), (0.5, 0, 0), (-0.25, 0.375, 0))
    narrow = Independent(Normal(mean, scale), 1)
    if form == "factor":
        full = MultivariateNormal(mean + step, scale_tril=scale.diag() + off)
        cov = matrix(scale.diag() + off)
        cov = cov * cov.T
    else:
        full = MultivariateNormal(mean + step, scale.square().diag() + off + off.mT)
        cov = matrix(scale.square().diag() + off + off.mT)
    forward, backward = kl(narrow, full), kl(full, narrow)
    assert relative(forward, exact_gaussian(mean, diagonal(scale), mean + step, cov)) < 1e-12
    assert relative(backward, exact_gaussian(mean + step, cov, mean, diagonal(scale))) < 1e-12


def test_full_gaussian_with_one_narrow_direction():
    turn = torch.linalg.qr(torch.randn(3, 3, generator=seeded(5), dtype=F64))[0].tril() + 2 * torch.eye(3, dtype=F64)
    factor = turn * f64(1.0, 1e-6, 1e-3)
    p, q = (MultivariateNormal(f64(0, 0, 0), scale_tril=f) for f in (factor, torch.eye(3, dtype=F64)))
    a = matrix(factor)
    assert relative(kl(p, q), exact_gaussian(f64(0, 0, 0), a * a.T, f64(0, 0, 0), mpmath.eye(3))) < 1e-12


def test_gaussians_agree_with_torch(device, dtype):
    rng = seeded(4)
    mean = torch.randn(2, 3, 4, generator=rng, dtype=dtype).to(device)
    factors = torch.stack([triangle(4, rng), triangle(4, rng)])[:, None].to(device, dtype)
    p, q = MultivariateNormal(mean[0], scale_tril=factors[0]), MultivariateNormal(mean[1], scale_tril=factors[1])
    found = kl(p, q)
    assert found.shape == (3,)
    assert found.dtype == dtype
    torch.testing.assert_close(found, kl_divergence(p, q), rtol=2e-5, atol=1e-6)
    a, b = Normal(mean[0], mean[1].exp()), Normal(mean[1], mean[0].exp())
    torch.testing.assert_close(kl(a, b), kl_divergence(a, b), rtol=2e-5, atol=1e-6)


def test_gaussian_batches_broadcast():
    rng = seeded(6)
    p = Independent(Normal(torch.randn(4, 1, 3, generator=rng, dtype=F64), f64(1.0)), 1)
    q = MultivariateNormal(torch.randn(5, 3, generator=rng, dtype=F64), scale_tril=triangle(3, rng))
    table = kl(p, q)
    assert table.shape == (4, 5)
    one = kl(
        Independent(Normal(p.mean[2, 0], f64(1.0, 1.0, 1.0)), 1),
        MultivariateNormal(q.loc[3], scale_tril=q.scale_tril[3]),
    )
    torch.testing.assert_close(table[2, 3], one, rtol=1e-14, atol=0)


@pytest.mark.parametrize("step", [0.5, 0.0])
def test_gaussian_gradients_to_second_order(step):
    rng = seeded(7)
    mean, log_scale, factor = torch.zeros(2, dtype=F64), f64(0.1, -0.3), triangle(2, rng)

    def narrow(m, s):
        return Independent(Normal(m, s.exp()), 1)

    def by_factor(m, f):
        return MultivariateNormal(m, scale_tril=f.tril())

    def by_covariance(m, f):
        return MultivariateNormal(m, f.tril() @ f.tril().mT)

    def inputs(*tensors):
        moved = [t + step * torch.randn(t.shape, generator=rng, dtype=F64) for t in tensors]
        return tuple(t.clone().requires_grad_() for t in (*tensors, *moved))

    families = [
        (lambda m, s, n, r: kl(narrow(m, s), narrow(n, r)), inputs(mean, log_scale)),
        (lambda m, f, n, g: kl(by_factor(m, f), by_factor(n, g)), inputs(mean, factor)),
        (lambda m, f, n, g: kl(by_covariance(m, f), by_covariance(n, g)), inputs(mean, factor)),
        (lambda m, f, n, g: kl(narrow(m, f.diagonal()), by_factor(n, g)), inputs(mean, factor)),
    ]
    for divergence, values in families if step else families[:2]:
        assert torch.autograd.gradcheck(divergence, values)
    for divergence, values in families[:3] if step else families[:2]:
        assert torch.autograd.gradgradcheck(divergence, values)


def test_entropy_of_gaussians():
    scale = f64(0.5, 2.0)
    exact = mp.fsum(mp.log(2 * mp.pi * mp.e * mp.mpf(s) ** 2) / 2 for s in scale.tolist())
    assert relative(entropy(Independent(Normal(f64(0, 0), scale), 1)), exact) < 1e-14
    assert relative(entropy(MultivariateNormal(f64(0, 0), scale.square().diag())), exact) < 1e-14
    assert entropy(Independent(Normal(torch.zeros(5, 2), torch.ones(5, 2)), 1)).shape == (5,)


# --- Bernoullis ------------------------------------------------------------------------------------------------------


def sides(logit: float):
    return 1 / (1 + mp.exp(-mp.mpf(logit))), 1 / (1 + mp.exp(mp.mpf(logit)))


def exact_bernoulli(a: float, b: float):
    return mp.fsum(x * mp.log(x / y) for x, y in zip(sides(a), sides(b), strict=True))


def of_logit(y, dtype=F64) -> Bernoulli:
    return Bernoulli(logits=torch.as_tensor(y, dtype=dtype))


@pytest.mark.parametrize(("a", "b"), [*itertools.product([-700.0, -40.0, -3.0, 0.0, 0.5, 30.0, 700.0], repeat=2)])
def test_bernoullis_far_apart(a, b):
    with mpmath.workdps(700):  # 1 − e^{−700} and its logarithm
        exact = exact_bernoulli(a, b) if a != b else mp.mpf(0)
    assert relative(kl(of_logit(a), of_logit(b)), exact) < 1e-12
    found = kl(of_logit(a, torch.float32), of_logit(b, torch.float32))
    assert found.item() == pytest.approx(float(exact), rel=5e-6, abs=1e-37)


@pytest.mark.parametrize("step", [0.3, 0.2, 0.1, *STEPS])
@pytest.mark.parametrize("logit", [-300.0, -30.0, -1.0, 0.0, 2.0, 30.0, 300.0])
def test_bernoullis_close_together(logit, step):
    a, b = logit, logit + step * max(1.0, abs(logit))
    with mpmath.workdps(400):
        there, back = exact_bernoulli(a, b), exact_bernoulli(b, a)
    assert relative(kl(of_logit(a), of_logit(b)), there) < 1e-12
    assert relative(kl(of_logit(b), of_logit(a)), back) < 1e-12


def test_bernoullis_given_by_probabilities_keep_them():
    def prob(p):
        return Bernoulli(probs=f64(p))

    for p, q in itertools.permutations([0.0, 1e-300, 1e-20, 0.3, 0.3 + 1e-9, 1 - 2**-50, 1.0], 2):
        found = kl(prob(p), prob(q))
        if (p > 0 and q == 0) or (p < 1 and q == 1):
            assert found.item() == math.inf
        else:
            exact = exact_kl((mp.mpf(p), 1 - mp.mpf(p)), (mp.mpf(q), 1 - mp.mpf(q)))
            assert relative(found, exact) < 1e-12
    assert kl(prob(0.0), prob(0.0)).item() == 0
    assert kl(prob(1.0), prob(1.0)).item() == 0


def test_bernoullis_of_both_kinds():
    found = kl(Bernoulli(probs=f64(0.25)), of_logit([0.5]))
    assert relative(found, exact_kl((0.25, 0.75), sides(0.5))) < 1e-14
    assert relative(kl(of_logit([0.5]), Bernoulli(probs=f64(0.25))), exact_kl(sides(0.5), (0.25, 0.75))) < 1e-14


def test_certain_bernoullis_give_no_nan():
    values = torch.tensor([-math.inf, 0.0, math.inf], dtype=F64)
    table = kl(of_logit(values[:, None]), of_logit(values))
    expected = f64((0, math.log(2), math.inf), (math.inf, 0, math.inf), (math.inf, math.log(2), 0))
    torch.testing.assert_close(table, expected)


@pytest.mark.parametrize("step", [0.0, 1e-3, 2.0])
def test_bernoulli_gradients_to_second_order(step):
    a = f64(-3.0, 0.0, 1.5).requires_grad_()
    b = (a.detach() + step * f64(1, -1, 0.5)).requires_grad_()

    def divergence(y, z):
        return kl(Bernoulli(logits=y), Bernoulli(logits=z))

    assert torch.autograd.gradcheck(divergence, (a, b))
    assert torch.autograd.gradgradcheck(divergence, (a, b))
    assert torch.autograd.gradcheck(lambda y: entropy(Bernoulli(logits=y)), (a,))


def test_bernoulli_gradients_at_extreme_logits():
    a = f64(-700, 700, -700, 700, 0).requires_grad_()
    b = f64(700, -700, -700, 700, 700).requires_grad_()
    kl(Bernoulli(logits=a), Bernoulli(logits=b)).sum().backward()
    assert a.grad.isfinite().all()
    torch.testing.assert_close(b.grad, f64(1, -1, 0, 0, 0.5))  # σ(b) − σ(a)


@pytest.mark.parametrize("logit", [0.0, 0.7, 5.0, 40.0, 700.0])
def test_entropy_of_a_bernoulli_is_exact_and_even(logit):
    with mpmath.workdps(700):
        exact = -mp.fsum(x * mp.log(x) for x in sides(logit))
    assert relative(entropy(of_logit(logit)), exact) < 1e-12
    assert torch.equal(entropy(of_logit(logit)), entropy(of_logit(-logit)))


def test_entropy_of_bernoullis_given_by_probabilities():
    assert entropy(Bernoulli(probs=f64(0.0, 1.0))).tolist() == [0, 0]
    p = mp.mpf(1e-20)
    assert relative(entropy(Bernoulli(probs=f64(1e-20))), -p * mp.log(p) - (1 - p) * mp.log(1 - p)) < 1e-12
    assert entropy(Independent(Bernoulli(probs=torch.full((2, 3), 0.5)), 1)).shape == (2,)
    assert relative(entropy(Categorical(probs=f64(0.5, 0.25, 0.25))), 1.5 * mp.log(2)) < 1e-14


def test_independent_sums_over_its_axes():
    y = torch.randn(2, 4, 3, 5, generator=seeded(9), dtype=F64)
    plain = kl(Bernoulli(logits=y[0]), Bernoulli(logits=y[1]))
    for axes in (1, 2, 3):
        p, q = (Independent(Bernoulli(logits=part), axes) for part in y)
        torch.testing.assert_close(kl(p, q), plain.sum(tuple(range(-axes, 0))), rtol=1e-14, atol=0)
    nested = [Independent(Independent(Bernoulli(logits=part), 1), 1) for part in y]
    with pytest.raises(ValueError, match="no closed form"):
        kl(*nested)


# --- what is refused -------------------------------------------------------------------------------------------------


def vector(n: int) -> Independent:
    return Independent(Normal(torch.zeros(n), torch.ones(n)), 1)


@pytest.mark.parametrize(
    ("p", "q", "what"),
    [
        ([0.5, 0.6], [0.5, 0.5], r"p sums to 1\.1, not 1; divide by p\.sum"),
        ([0.5, 0.5], [[0.5, 0.5], [0.5, 0.4]], r"q sums to 0\.9 in row \[1\], not 1; divide by q\.sum"),
        ([1.5, -0.5], [0.5, 0.5], r"p\[1\] is -0\.5; probabilities are not negative"),
        ([0.5, 0.5], [math.nan, 1.0], r"q\[0\] is nan: 1 of 2 values are not finite; remove or replace"),
        ([0.5, 0.5], [1.0], r"p has 2 outcomes and q 1; they must share"),
        ([[0.5, 0.5]] * 2, [[0.5, 0.5]] * 3, r"p has the batch shape \(2,\) and q \(3,\); they do not broadcast"),
        (1.0, [0.5, 0.5], r"p has shape \(\); pass probabilities along the last axis"),
        ([], [], r"p has shape \(0,\); pass probabilities"),
    ],
)
def test_vectors_that_are_refused(p, q, what):
    for divergence in (kl, js, tv) if "sum" in what or "p[" in what else (kl,):  # else the annotations refuse first
        with pytest.raises(ValueError, match=what):
            divergence(torch.tensor(p), torch.tensor(q))


@pytest.mark.parametrize(
    ("p", "q", "what"),
    [
        (vector(3), Normal(torch.zeros(3), 1.0), r"events of shape \(3,\) .* over \(\)"),
        (vector(1), vector(8), r"events of shape \(1,\) .* over \(8,\) .* Independent"),
        (vector(3), MultivariateNormal(torch.zeros(4), torch.eye(4)), r"\(3,\) .* over \(4,\)"),
        (Normal(torch.zeros(2), 1.0), Normal(torch.zeros(3), 1.0), r"batch shape \(2,\) and q \(3,\)"),
        (Normal(torch.zeros(2), 1.0), Laplace(torch.zeros(2), 1.0), r"KL\(Normal‖Laplace\); estimate it as the mean"),
        (Bernoulli(torch.tensor(0.5)), Normal(0.0, 1.0), "no closed form here for"),
        (torch.tensor([0.5, 0.5]), Normal(0.0, 1.0), "no closed form here for"),
    ],
)
def test_distributions_that_are_refused(p, q, what):
    with pytest.raises(ValueError, match=what):
        kl(p, q)


def test_two_devices_are_named():
    here, there = torch.tensor([0.5, 0.5]), torch.empty(2, device="meta")
    for divergence in (kl, js, tv):
        with pytest.raises(ValueError, match=r"p is on cpu and q on meta; move one of them: q\.to\(p\.device\)"):
            divergence(here, there)
    with pytest.raises(ValueError, match="p is on cpu and q on meta"):
        kl(Normal(here, here), Normal(there, there, validate_args=False))
    with pytest.raises(ValueError, match="p is on meta and q on cpu"):
        kl(Bernoulli(logits=there, validate_args=False), Bernoulli(logits=here))


def test_sums_are_held_to_the_precision_of_their_dtype():
    p = f64(0.5, 0.5)
    kl(p + f64(4e-10, 0), p)
    with pytest.raises(ValueError, match="not 1"):
        kl(p + f64(2e-9, 0), p)
    kl((p + f64(4e-6, 0)).float(), p.float())
    with pytest.raises(ValueError, match="not 1"):
        kl((p + f64(3e-5, 0)).float(), p.float())
    with pytest.raises(ValueError, match="p sums to"):
        entropy(torch.tensor([0.5, 0.4]))
