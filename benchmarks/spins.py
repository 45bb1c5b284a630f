"""Updates of spins per second on a critical Ising magnet, beside a compiled loop over the sites.

    python benchmarks/spins.py          # needs numba; prints the ratios, writes benchmarks/results/spins.json

A periodic lattice of 128 × 128 sites at the critical coupling, on one CPU thread; an update is one site of one replica
visited once.

plain         Metropolis site by site in a compiled loop (numba), int8 spins, the two exponentials in a table, one
              random number for each uphill move: what a good lecture's program is, compiled;
chequerboard  lecturecode.markov.checkerboard, heat bath, 8 chains of int8;
multispin     lecturecode.markov.multispin, 64 replicas in the bits of a word, each with its own chance;
compiled      the same algorithm as multispin, word by word in numba, with splitmix64 for the random words;
clusters      lecturecode.markov.swendsen_wang, 8 chains (its updates decorrelate more: compare autocorrelation times);
limit         the random words alone that the chequerboard draws.

Before any timing each of them must find the energy of the 4 × 4 magnet within 5 standard errors of its 65,536 states,
and replicas of a word must be uncorrelated, below 0.05. Then they alternate, round by round; CPU time of the process,
minimum and median, ratio of the minima and of the medians.
"""

import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from numba import njit, uint64
from report import asked, processor

from lecturecode import __version__, seeded
from lecturecode.boltzmann import ising, states
from lecturecode.markov import checkerboard, multispin, pack, swendsen_wang, unpack
from lecturecode.markov.sites import halves, joined

SIDE, SWEEPS, CHAINS = 128, 20, 8
J = math.log(1 + math.sqrt(2)) / 2
RESULTS = Path(__file__).parent / "results" / "spins.json"


@njit
def _seed(value):
    np.random.seed(value)  # noqa: NPY002  compiled, this is numba's own stream and not NumPy's global one


@njit
def _plain(x, chance, sweeps):
    side = x.shape[0]
    for _ in range(sweeps):
        for r in range(side):
            up, down = x[r - 1], x[(r + 1) % side]
            for c in range(side):
                near = up[c] + down[c] + x[r, c - 1] + x[r, (c + 1) % side]
                cost = near * x[r, c]
                if cost <= 0 or np.random.random() < chance[cost]:  # noqa: NPY002  as in _seed
                    x[r, c] = -x[r, c]


@njit
def _compiled(half, rng, digits_four, digits_eight, sweeps):
    """half (2, rows, columns/2) uint64; the digits of e^{−4J} and e^{−8J} as words of all ones or zeros."""
    rows, columns, counter = half.shape[1], half.shape[2], rng[0]
    for _ in range(sweeps):
        for colour in range(2):
            own, other = half[colour], half[1 - colour]
            for r in range(rows):
                up, down, row = other[r - 1], other[(r + 1) % rows], other[r]
                shift = columns - 1 if (r + colour) % 2 == 0 else 1
                for k in range(columns):
                    side = k + shift
                    side = side - columns if side >= columns else side
                    s = own[r, k]
                    e, f, g, h = s ^ row[k], s ^ up[k], s ^ down[k], s ^ row[side]
                    odd_ef, both_ef, odd_gh, both_gh = e ^ f, e & f, g ^ h, g & h
                    two = both_ef | both_gh | (odd_ef & odd_gh)  # at least two neighbours disagree
                    one = (odd_ef | odd_gh) & ~two
                    none = ~(two | one)
                    flips, open_ = two, ~two
                    for digit in range(8):  # of fixed length, never mispredicted; most words are decided then
                        counter += uint64(0x9E3779B97F4A7C15)
                        level = (counter ^ (counter >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
                        level = (level ^ (level >> uint64(27))) * uint64(0x94D049BB133111EB)
                        level ^= level >> uint64(31)
                        of_p = (one & digits_four[digit]) | (none & digits_eight[digit])
                        flips |= open_ & of_p & ~level
                        open_ &= ~(of_p ^ level)
                    digit = 8
                    while open_ != 0 and digit < 64:
                        counter += uint64(0x9E3779B97F4A7C15)
                        level = (counter ^ (counter >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
                        level = (level ^ (level >> uint64(27))) * uint64(0x94D049BB133111EB)
                        level ^= level >> uint64(31)
                        of_p = (one & digits_four[digit]) | (none & digits_eight[digit])
                        flips |= open_ & of_p & ~level
                        open_ &= ~(of_p ^ level)
                        digit += 1
                    own[r, k] = s ^ flips
    rng[0] = counter


def digits(p: float) -> np.ndarray:
    top, bottom = p.as_integer_ratio()
    number = top * 2**64 // bottom
    return np.array([2**64 - 1 if number >> (63 - k) & 1 else 0 for k in range(64)], dtype=np.uint64)


DIGITS = digits(math.exp(-4 * J)), digits(math.exp(-8 * J))
CHANCE = np.array([1.0, 1.0, math.exp(-4 * J), 1.0, math.exp(-8 * J)])


def compiled_sweeps(x: torch.Tensor, state: np.ndarray, rows: int, columns: int, sweeps: int) -> torch.Tensor:
    """One word for each site, (rows · columns,)."""
    half = np.stack([part[0].numpy() for part in halves(x[None], rows, columns)]).view(np.uint64)
    _compiled(half, state, *DIGITS, sweeps)
    black, white = (torch.from_numpy(part.view(np.int64)) for part in half)
    return joined(black[None], white[None])[0]


def fresh_state(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, 1, dtype=np.uint64)


def gate() -> dict[str, float]:
    """How many standard errors each is off on the 4 × 4 magnet, and the largest correlation of two replicas."""
    magnet, table = ising(4, 4, J, periodic=True), states(16)
    exact = float(magnet.probabilities().detach() @ magnet.energy(table).detach())
    rng, state = seeded(2), fresh_state(3)
    found: dict[str, torch.Tensor] = {}
    x = torch.ones(512, 16, dtype=torch.float64)
    kernels = {
        "chequerboard": (checkerboard(4, 4, J, 0.0, True), x),
        "clusters": (swendsen_wang(4, 4, J, 0.0, True), x),
        "multispin": (multispin(4, 4, J), pack(x)),
    }
    for name, (kernel, x) in kernels.items():
        total = torch.zeros(512, dtype=torch.float64)
        for step in range(250):
            x = kernel(x, rng)
            if step >= 50:
                total += magnet.energy(unpack(x) if name == "multispin" else x).detach() / 200
        found[name] = total
    words, total, product = torch.full((16,), -1), torch.zeros(64, dtype=torch.float64), torch.zeros(64, 64).double()
    grid, plain = np.ones((64, 4, 4), np.int8), torch.zeros(64, dtype=torch.float64)
    _seed(4)
    for step in range(2100):
        words = compiled_sweeps(words, state, 4, 4, 1)
        for one in grid:
            _plain(one, CHANCE, 1)
        if step >= 100:
            s = unpack(words[None])
            total += magnet.energy(s).detach() / 2000
            product += s @ s.mT / 16 / 2000
            plain += magnet.energy(torch.from_numpy(grid.reshape(64, 16)).double()).detach() / 2000
    found |= {"compiled": total, "plain": plain}
    off = {name: float(abs(e.mean() - exact) / (e.std() / len(e) ** 0.5)) for name, e in found.items()}
    if not max(off.values()) < 5:
        raise SystemExit(f"an energy is off by too many errors: {off}; nothing was timed")
    return {name: round(value, 2) for name, value in off.items()} | {"replicas": correlation()}


def correlation() -> float:
    """The largest correlation of two of the 64 replicas of `compiled`, which start alike, above the critical point."""
    global DIGITS
    before, DIGITS = DIGITS, (digits(math.exp(-1.0)), digits(math.exp(-2.0)))
    words, state, product = torch.full((32 * 32,), -1), fresh_state(5), torch.zeros(64, 64, dtype=torch.float64)
    for step in range(1000):
        words = compiled_sweeps(words, state, 32, 32, 2)
        if step >= 100:
            s = unpack(words[None])
            product += s @ s.mT / s.shape[1] / 900
    DIGITS = before
    largest = float(product.fill_diagonal_(0).abs().max())
    if not largest < 0.05:
        raise SystemExit(f"replicas are correlated: {largest:.3f}; nothing was timed")
    return round(largest, 4)


def timed(work: Callable[[], object]) -> float:
    """CPU seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(rounds: int) -> dict:
    rng, state, sites = seeded(1), fresh_state(1), SIDE**2
    start = torch.where(torch.rand(64, sites, generator=rng) < 0.5, -1, 1).to(torch.int8)
    check, many = checkerboard(SIDE, SIDE, J, 0.0, True), multispin(SIDE, SIDE, J)
    cluster = swendsen_wang(SIDE, SIDE, J, 0.0, True)
    x = {"chequerboard": start[:CHAINS], "multispin": pack(start), "clusters": start[:CHAINS]}
    words, plain = pack(start)[0], start[0].view(SIDE, SIDE).numpy().copy()
    drawn = torch.empty(CHAINS * sites // 2, dtype=torch.int64)

    def steps(name, kernel, count):
        for _ in range(count):
            x[name] = kernel(x[name], rng)

    def compiled():
        nonlocal words
        words = compiled_sweeps(words, state, SIDE, SIDE, SWEEPS)

    def limit():
        for _ in range(SWEEPS):
            drawn.random_(-(2**63), None, generator=rng)

    contestants: dict[str, tuple[Callable[[], object], int]] = {
        "plain": (lambda: _plain(plain, CHANCE, SWEEPS), SWEEPS * sites),
        "chequerboard": (lambda: steps("chequerboard", check, SWEEPS), SWEEPS * CHAINS * sites),
        "multispin": (lambda: steps("multispin", many, SWEEPS), SWEEPS * 64 * sites),
        "compiled": (compiled, SWEEPS * 64 * sites),
        "clusters": (lambda: steps("clusters", cluster, 2), 2 * CHAINS * sites),
        "limit": (limit, SWEEPS * CHAINS * sites),
    }
    for work, _ in contestants.values():
        work()
        work()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, (work, updates) in contestants.items():
            times[name].append(timed(work) / updates)

    def ratio(name: str) -> dict[str, float]:
        return {
            f.__name__.replace("min", "minimum"): round(f(times["plain"]) / f(times[name]), 2)
            for f in (min, statistics.median)
        }

    return {
        "million updates a second": {
            name: {"best": round(1e-6 / min(t), 1), "median": round(1e-6 / statistics.median(t), 1)}
            for name, t in times.items()
        },
        "rate over that of plain": {name: ratio(name) for name in times if name not in ("plain", "limit")},
        "chequerboard over limit": round(min(times["chequerboard"]) / min(times["limit"]), 2),
    }


def main() -> None:
    options = asked(__doc__, 9, RESULTS)
    torch.set_num_threads(1)
    report = {
        "machine": {"processor": processor(), "system": platform.system(), "threads": 1},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numba": numba.__version__,
            "lecturecode": __version__,
        },
        "setting": {"lattice": f"{SIDE} x {SIDE}, periodic", "rounds": options.rounds, "clock": "CPU time"},
        "gate, in standard errors": gate(),
    } | measure(options.rounds)
    print(json.dumps(report, indent=1))
    options.keep.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
