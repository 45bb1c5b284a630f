"""Block transfer against Python integers, dense transfer matrices, closed forms, and the machine of the same magnet."""

import itertools
import math
import time
from collections import Counter

import mpmath
import numpy as np
import pytest
import torch

from lecturecode import seeded
from lecturecode.boltzmann import BoltzmannMachine, ising, lattice, lattice_log_partition, torus_log_partition
from lecturecode.boltzmann.lattice import BLOCK

F64 = torch.float64
FREE, CYLINDER, TORUS = "free", "cylinder", "torus"
SHAPES = [(1, 1), (1, 6), (6, 1), (2, 2), (3, 4), (4, 3), (2, 7), (7, 2), (2, 8), (8, 2), (4, 4)]


def log_partition(kind, *magnet, **options):
    if kind == TORUS:
        return torus_log_partition(*magnet, **options)
    return lattice_log_partition(*magnet, cylinder=kind == CYLINDER, **options)


def sizes(kind, rows, columns):
    """Shapes of the horizontal bonds, of the vertical bonds and of the fields."""
    return (rows, columns - (kind == FREE)), (rows - (kind != TORUS), columns), (rows, columns)


def random_magnet(kind, rows, columns, scale=1.0, seed=1, dtype=F64):
    rng = seeded(seed)
    return [scale * torch.randn(size, generator=rng, dtype=F64).to(dtype) for size in sizes(kind, rows, columns)]


def possible(kind, rows, columns):
    return kind == FREE or (columns > 1 and (kind == CYLINDER or rows > 1))


CASES = [(kind, r, c) for kind in (FREE, CYLINDER, TORUS) for r, c in SHAPES if possible(kind, r, c)]


def log_by_integers(horizontal, vertical, fields):
    """log Σ_s 2^{−E(s)} for integer bonds and fields: every term and the sum are Python integers."""
    rows, columns = fields.shape
    n = rows * columns
    s = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1).reshape(-1, rows, columns)
    exponent = (s * fields).sum((1, 2))
    for c in range(horizontal.shape[1]):
        exponent += (s[:, :, c] * s[:, :, (c + 1) % columns] * horizontal[:, c]).sum(1)
    for r in range(vertical.shape[0]):
        exponent += (s[:, r] * s[:, (r + 1) % rows] * vertical[r]).sum(1)
    lowest = int(exponent.min())
    total = sum(count << (int(e) - lowest) for e, count in Counter(exponent.tolist()).items())
    with mpmath.workdps(40):
        return float(mpmath.log(total) + lowest * mpmath.log(2))


@pytest.mark.parametrize("largest", [0, 2, 40, 1443])  # 1443 log 2 = 1000.2
@pytest.mark.parametrize(("kind", "rows", "columns"), CASES)
def test_integers(kind, rows, columns, largest):
    """Bonds and fields are integer multiples of log 2, from none to a thousand: within 1e-12 each time."""
    rng = np.random.default_rng(rows * 10 + columns)
    magnet = [rng.integers(-largest, largest + 1, size) for size in sizes(kind, rows, columns)]
    found = log_partition(kind, *(math.log(2) * torch.from_numpy(part).to(F64) for part in magnet))
    assert found.item() == pytest.approx(log_by_integers(*magnet), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("kind", "rows", "columns"), [(FREE, 4, 5), (CYLINDER, 5, 4), (TORUS, 4, 4), (TORUS, 2, 3)])
def test_it_is_the_machine_of_the_same_magnet(kind, rows, columns):
    horizontal, vertical, fields = random_magnet(kind, rows, columns)
    site = np.arange(rows * columns).reshape(rows, columns)
    J = torch.zeros(rows * columns, rows * columns, dtype=F64)
    for bonds, ends in ((horizontal, np.roll(site, -1, 1)), (vertical, np.roll(site, -1, 0))):
        for r, c in np.ndindex(*bonds.shape):
            J[site[r, c], ends[r, c]] += bonds[r, c]
    machine = BoltzmannMachine(J + J.mT, fields.flatten())
    z = log_partition(kind, horizontal, vertical, fields)
    torch.testing.assert_close(z, machine.log_partition().detach(), rtol=1e-12, atol=0)


def dense_transfer(horizontal, vertical, fields):
    """A cylinder or a free lattice by one dense 2^L × 2^L matrix a row, in logarithms."""
    rows, columns = fields.shape
    s = 2.0 * (np.arange(2**columns)[:, None] >> np.arange(columns) & 1) - 1
    pairs = np.stack([s[:, c] * s[:, (c + 1) % columns] for c in range(horizontal.shape[1])], 1)
    own = fields @ s.T + horizontal @ pairs.T
    log_w = own[0]
    for r in range(rows - 1):
        log_w = own[r + 1] + np.logaddexp.reduce((s * vertical[r]) @ s.T + log_w, axis=1)
    return np.logaddexp.reduce(log_w)


@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0, 100.0])
@pytest.mark.parametrize("kind", [FREE, CYLINDER])
@pytest.mark.parametrize(("rows", "columns"), [(9, 8), (12, 7), (8, 11)])
def test_dense_transfer(kind, rows, columns, scale):
    magnet = random_magnet(kind, rows, columns, scale)
    expected = dense_transfer(*(part.numpy() for part in magnet))
    assert log_partition(kind, *magnet).item() == pytest.approx(expected, rel=1e-12)


def onsager_kaufman(rows, columns, coupling):
    """The torus without a field, Kaufman (1949): four products, the sign of γ_0 being that of coupling − critical."""
    with mpmath.workdps(40):
        K = mpmath.mpf(coupling)
        rise = mpmath.cosh(2 * K) * mpmath.coth(2 * K)
        gamma = [mpmath.acosh(rise - mpmath.cos(mpmath.pi * k / columns)) for k in range(2 * columns)]
        gamma[0] = 2 * K + mpmath.log(mpmath.tanh(K))
        terms = [
            mpmath.fprod(2 * function(rows * g / 2) for g in gamma[parity::2])
            for parity in (1, 0)
            for function in (mpmath.cosh, mpmath.sinh)
        ]
        log_prefactor = mpmath.mpf(rows * columns) / 2 * mpmath.log(2 * mpmath.sinh(2 * K)) - mpmath.log(2)
        return float(log_prefactor + mpmath.log(mpmath.fsum(terms)))


@pytest.mark.parametrize("coupling", [0.1, 0.44, 0.8, 3.0])
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (2, 3), (3, 2), (3, 3), (4, 4), (4, 5), (5, 4), (5, 5)])
def test_kaufmans_torus(rows, columns, coupling):
    """Sides of both parities, sides of two (whose pairs are bound twice), warm and cold; the machine and the blocks."""
    exact = onsager_kaufman(rows, columns, coupling)
    bonds = torch.full((rows, columns), coupling, dtype=F64)
    assert torus_log_partition(bonds, bonds, torch.zeros_like(bonds)).item() == pytest.approx(exact, rel=1e-12)
    machine = ising(rows, columns, coupling, periodic=True)
    assert machine.log_partition().item() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("coupling", [0.3, 0.9])
def test_a_wide_torus(coupling):
    """9 × 10 through 2^18 boundary states."""
    bonds = torch.full((9, 10), coupling, dtype=F64)
    exact = onsager_kaufman(9, 10, coupling)
    assert torus_log_partition(bonds, bonds, torch.zeros_like(bonds)).item() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 7, 24])
def test_chain_and_ring_in_closed_form(n):
    """Free chain without field: 2^n ∏ cosh K_i; ring: the trace ∏ 2cosh K_i + ∏ 2sinh K_i. Lying and standing."""
    K = torch.randn(1, n, generator=seeded(n), dtype=F64)
    none, zeros = K[:0], torch.zeros(1, n, dtype=F64)
    chain = n * math.log(2) + K[:, :-1].cosh().log().sum().item()
    assert lattice_log_partition(K[:, :-1], none, zeros).item() == pytest.approx(chain, rel=1e-13)
    assert lattice_log_partition(K.mT[:, :0], K[:, :-1].mT, zeros.mT).item() == pytest.approx(chain, rel=1e-13)
    ring = n * math.log(2) + math.log(K.cosh().prod() + K.sinh().prod())
    assert lattice_log_partition(K, none, zeros, cylinder=True).item() == pytest.approx(ring, rel=1e-13)


def test_a_long_ring_is_cut_along_its_rows():
    """Rings of 1000 and of 11: 2·rows boundary sites, not columns."""
    K, zeros = torch.full((1, 1000), 0.7, dtype=F64), torch.zeros(1, 1000, dtype=F64)
    with mpmath.workdps(30):
        exact = float(mpmath.log((2 * mpmath.cosh(K[0, 0].item())) ** 1000 + (2 * mpmath.sinh(K[0, 0].item())) ** 1000))
    assert lattice_log_partition(K, K[:0], zeros, cylinder=True).item() == pytest.approx(exact, rel=1e-13)
    for scale in (1.0, 30.0):
        magnet = random_magnet(CYLINDER, 3, 11, scale)
        direct = dense_transfer(*(part.numpy() for part in magnet))
        assert lattice_log_partition(*magnet, cylinder=True, limit=6).item() == pytest.approx(direct, rel=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (13, 9)])
def test_free_spins(rows, columns):
    """Without bonds Σ log 2cosh b; with a huge field minus the energy of the one state left, and the same for bonds."""
    horizontal, vertical, fields = random_magnet(FREE, rows, columns)
    none = lattice_log_partition(0 * horizontal, 0 * vertical, fields)
    assert none.item() == pytest.approx((2 * fields.cosh()).log().sum().item(), rel=1e-13)
    s = fields.sign()
    aligned = (horizontal * s[:, 1:] * s[:, :-1]).sum() + (vertical * s[1:] * s[:-1]).sum() + 1000 * s.mul(s).sum()
    held = lattice_log_partition(horizontal, vertical, 1000 * s)
    assert held.item() == pytest.approx(aligned.item(), rel=1e-12)
    bonds = lattice_log_partition(
        1000 * horizontal.sign(), 1000 * vertical[:0].new_zeros(rows - 1, columns), 0 * fields
    )
    assert bonds.item() == pytest.approx(1000 * horizontal.numel() + rows * math.log(2), rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 20.0, 1000.0])
@pytest.mark.parametrize("kind", [FREE, CYLINDER])
def test_mirrors_and_gauges(kind, scale):
    """Reflected, rotated (free), all fields turned, and with the sign of any spin changed everywhere it stands."""
    horizontal, vertical, fields = random_magnet(kind, 10, 9, scale)
    z = log_partition(kind, horizontal, vertical, fields).item()
    s = torch.where(torch.rand(10, 9, generator=seeded(2)) < 0.5, -1.0, 1.0).to(F64)
    across = s * s.roll(-1, 1)
    others = {
        "upside down": (horizontal.flip(0), vertical.flip(0), fields.flip(0)),
        "all fields turned": (horizontal, vertical, -fields),
        "gauge": (horizontal * across[:, : horizontal.shape[1]], vertical * s[1:] * s[:-1], fields * s),
    }
    if kind == FREE:
        others["left is right"] = (horizontal.flip(1), vertical.flip(1), fields.flip(1))
        others["transposed"] = (vertical.mT, horizontal.mT, fields.mT)
    else:
        others["turned by four sites"] = (horizontal.roll(4, 1), vertical.roll(4, 1), fields.roll(4, 1))
    for name, other in others.items():
        assert log_partition(kind, *other).item() == pytest.approx(z, rel=1e-12), name


@pytest.mark.parametrize("strength", [35.0, 43.0, 44.2, 44.4, 44.6, 46.0, 60.0])
def test_what_underflows_is_never_what_counts(strength):
    """Eight columns apart, of three spins: the first drawn up, the third down, harder, and bonds between them. All down
    in the second row is nearly all of Z; the first step sums it from 256 terms of exp(−16·strength), which from 44.3 on
    are below the smallest normal number while their sum is not. Subnormal numbers are made zero, as devices may."""
    fields, vertical = torch.zeros(9, 8, dtype=F64), torch.zeros(8, 8, dtype=F64)
    fields[0], fields[2], vertical[0], vertical[1] = strength, -4 * strength, strength, 2 * strength
    exponents = [strength * (s + s * t + 2 * t * u - 4 * u) for s, t, u in itertools.product((-1, 1), repeat=3)]
    column = float(np.logaddexp.reduce(exponents))
    assert torch.set_flush_denormal(True)
    try:
        found = lattice_log_partition(torch.zeros(9, 7, dtype=F64), vertical, fields).item()
    finally:
        torch.set_flush_denormal(False)
    assert found == pytest.approx(8 * column + 48 * math.log(2), rel=1e-13)


def test_both_ways_of_doing_a_row_agree(monkeypatch):
    """Four rows of strong bonds, which can lose digits to underflow, among weak ones; single sites everywhere."""
    taken = []
    magnet = random_magnet(CYLINDER, 12, 11)
    magnet[0][4:8] *= 200
    plain = lattice_log_partition(*magnet, cylinder=True).item()

    class Strict:
        tiny, eps = 1e300, 1.0

    row_weights = lattice._row_weights
    monkeypatch.setattr(lattice, "_row_weights", lambda *row: taken.append(0) or row_weights(*row))
    assert lattice_log_partition(*magnet, cylinder=True).item() == pytest.approx(plain, rel=1e-13)
    assert 4 <= len(taken) < 12  # the first row always, some others: both ways were used
    taken.clear()
    monkeypatch.setattr(torch, "finfo", lambda _: Strict)
    assert lattice_log_partition(*magnet, cylinder=True).item() == pytest.approx(plain, rel=1e-13)
    assert len(taken) == 12


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize(("kind", "rows", "columns"), [(FREE, 3, 4), (CYLINDER, 4, 3), (TORUS, 3, 3), (FREE, 2, 7)])
def test_its_gradient_is_the_means(kind, rows, columns, scale):
    """⟨s⟩ and the ⟨s s′⟩ of bonds, against the machine's table of probabilities."""
    magnet = [part.requires_grad_() for part in random_magnet(kind, rows, columns, scale)]
    slopes = torch.autograd.grad(log_partition(kind, *magnet), magnet)
    n = rows * columns
    s = (2.0 * (torch.arange(2**n)[:, None] >> torch.arange(n) & 1) - 1).to(F64).view(-1, rows, columns)
    right, below = s * s.roll(-1, 2), s * s.roll(-1, 1)
    terms = (right[:, :, : magnet[0].shape[1]], below[:, : magnet[1].shape[0]], s)
    exponents = torch.stack([(x * t).sum((1, 2)) for x, t in zip(magnet, terms, strict=True)])
    weight = exponents.detach().sum(0).softmax(0)
    for slope, term in zip(slopes, terms, strict=True):
        torch.testing.assert_close(slope, (weight[:, None, None] * term).sum(0), rtol=0, atol=1e-11)


def test_the_gradient_of_a_magnet_beyond_tables():
    """16 × 16: the derivative in one field and one bond against central differences, 1e-8 by their own error."""
    magnet = random_magnet(FREE, 16, 16, 0.5)
    leaves = [part.clone().requires_grad_() for part in magnet]
    slopes = torch.autograd.grad(lattice_log_partition(*leaves), leaves)
    for part in (0, 2):
        up, down = ([x.clone() for x in magnet] for _ in range(2))
        up[part][7, 8] += 1e-4
        down[part][7, 8] -= 1e-4
        difference = (lattice_log_partition(*up) - lattice_log_partition(*down)) / 2e-4
        assert slopes[part][7, 8].item() == pytest.approx(difference.item(), abs=1e-8)


def test_second_derivatives():
    magnet = tuple(part.requires_grad_() for part in random_magnet(CYLINDER, 3, 3))
    assert torch.autograd.gradgradcheck(lambda *m: lattice_log_partition(*m, cylinder=True), magnet)


@pytest.mark.parametrize("scale", [0.5, 5.0, 1000.0])
@pytest.mark.parametrize("kind", [FREE, CYLINDER])
def test_single_precision(kind, scale):
    """Within 1e-6 of the float64 answer for the same rounded numbers; the dtype stays."""
    magnet = random_magnet(kind, 12, 13, scale, dtype=torch.float32)
    found = log_partition(kind, *magnet)
    assert found.dtype == torch.float32
    exact = log_partition(kind, *(part.double() for part in magnet))
    assert found.item() == pytest.approx(exact.item(), rel=1e-6)


def test_the_blocks_are_cut_at_every_width():
    """Widths on both sides of one, two and three blocks, against the dense matrix."""
    for columns in (BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1):
        magnet = random_magnet(FREE, columns + 1, columns, 0.7)
        expected = dense_transfer(*(part.numpy() for part in magnet))
        assert lattice_log_partition(*magnet).item() == pytest.approx(expected, rel=1e-12)
    wide, bonds = random_magnet(FREE, 14, 13, 0.7), random_magnet(FREE, 14, 13, 0.7, seed=2)
    cut = [wide[0].clone(), wide[1], wide[2]]
    cut[0][:, 6] = 0  # two lattices of seven and of six columns side by side
    left = lattice_log_partition(cut[0][:, :6], cut[1][:, :7], cut[2][:, :7])
    right = lattice_log_partition(cut[0][:, 7:], cut[1][:, 7:], cut[2][:, 7:])
    assert lattice_log_partition(*cut).item() == pytest.approx((left + right).item(), rel=1e-12)
    assert lattice_log_partition(*bonds).item() != pytest.approx(lattice_log_partition(*wide).item(), rel=1e-6)


def test_too_wide_a_boundary_is_refused_at_once():
    start = time.perf_counter()
    zeros = torch.zeros(40, 40, dtype=F64)
    with pytest.raises(
        ValueError, match=r"40 × 40: its boundary has 2\^40 states; at most 2\^24 .*\(limit=…\); make one"
    ):
        lattice_log_partition(zeros[:, 1:], zeros[1:], zeros)
    with pytest.raises(ValueError, match=r"2\^80 states"):
        torus_log_partition(zeros, zeros, zeros)
    with pytest.raises(ValueError, match=r"2\^8 states; at most 2\^7"):
        lattice_log_partition(zeros[:9, :7], zeros[:8, :8], zeros[:9, :8], limit=7)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h, v, b: (h[:, 1:], v, b), r"horizontal has shape \(3, 2\), not \(3, 3\)"),
        (lambda h, v, b: (h, v[1:], b), r"vertical has shape \(1, 4\), not \(2, 4\)"),
        (lambda h, v, b: (h * math.nan, v, b), r"horizontal\[0, 0\] is nan"),
        (lambda h, v, b: (h, v, b / 0), r"fields\[0, 0\] is -?inf"),
        (lambda h, v, b: (h.float(), v, b), "horizontal is torch.float32 and fields is torch.float64; convert"),
        (lambda h, v, b: (h, v.to("meta"), b), "horizontal is on cpu and vertical on meta"),
        (lambda h, v, b: (h[:0], v[:0], b[:0]), "fields is empty"),
    ],
)
def test_bad_input(change, words):
    with pytest.raises(ValueError, match=words):
        lattice_log_partition(*change(*random_magnet(FREE, 3, 4)))


def test_a_site_is_never_bound_to_itself():
    zeros = torch.zeros(3, 1, dtype=F64)
    with pytest.raises(ValueError, match="a ring of 1 site would be bound to itself"):
        lattice_log_partition(zeros, zeros[1:], zeros, cylinder=True)
    with pytest.raises(ValueError, match="a torus of 3 × 1 binds a site to itself"):
        torus_log_partition(zeros, zeros, zeros)


def test_any_device(device, dtype):
    """The answer of the device is the CPU's."""
    magnet = random_magnet(FREE, 6, 7, dtype=dtype)
    found = lattice_log_partition(*(part.to(device) for part in magnet))
    assert found.device.type == device.type
    assert found.item() == pytest.approx(lattice_log_partition(*magnet).item(), rel=1e-6)
