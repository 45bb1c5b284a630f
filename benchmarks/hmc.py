"""Hamiltonian Monte Carlo over many chains at once: effective draws a second of CPU.

    python benchmarks/hmc.py                                  # beside NumPy; writes benchmarks/results/hmc.json
    python benchmarks/hmc.py --peer OTHER/bin/python          # and beside BlackJAX, installed in that environment

The target is a Gaussian in 32 dimensions, its covariance's eigenvalues from 0.1 to 1 in random directions; all sides
take the same number of leapfrog steps of the same size, jittered by ±20 % for each chain and step, in float32, on one
pinned CPU thread:

ours       hmc with the gradient given, walked by `run`;
autograd   hmc that derives the gradient itself;
numpy      the same algorithm over all chains in NumPy, with the gradient given;
blackjax   blackjax.hmc under vmap, scan and jit, compiled before any timing.

The effective sample size is that of the mean of the worst of the 32 coordinates and their squares, by
`lecturecode.markov.effective_sample_size`. Gate: all means and mean squares within six of their standard errors of the
truth, for every contestant in every round. Then rounds alternate; ratios of the median rates.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from report import asked, processor

from lecturecode import __version__, seeded
from lecturecode.markov import effective_sample_size, hmc, run, standard_error

N, SPREAD, STEPS, LEAPS, STEP, JITTER = 32, 0.6, 200, 8, 0.2, 0.2
CHAINS = (256, 1024)
RESULTS = Path(__file__).parent / "results" / "hmc.json"


def precision() -> torch.Tensor:
    directions = torch.linalg.qr(torch.randn(N, N, generator=seeded(1), dtype=torch.float64)).Q
    return (directions / torch.logspace(-1, 0, N, dtype=torch.float64)) @ directions.mT


def ours(A: torch.Tensor, chains: int, seed: int, gradient_given: bool) -> torch.Tensor:
    def log_prob(x: torch.Tensor) -> torch.Tensor:
        return -0.5 * ((x @ A) * x).sum(-1)

    rng = seeded(seed)
    x = SPREAD * torch.randn(chains, N, generator=rng)
    kernel = hmc(log_prob, STEP, LEAPS, jitter=JITTER, gradient=(lambda x: -(x @ A)) if gradient_given else None)
    kept = torch.empty(STEPS, chains, N)
    for t, state in enumerate(run(kernel, x, STEPS, rng)):
        kept[t] = state
    return kept


def plain(A: np.ndarray, chains: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    x = np.float32(SPREAD) * rng.standard_normal((chains, N), dtype=np.float32)
    kept = np.empty((STEPS, chains, N), dtype=np.float32)
    for t in range(STEPS):
        momentum = rng.standard_normal((chains, N), dtype=np.float32)
        size = np.float32(STEP) * (1 + np.float32(JITTER) * (2 * rng.random((chains, 1), dtype=np.float32) - 1))
        slope = -x @ A
        before = 0.5 * (x * slope).sum(1) - 0.5 * (momentum**2).sum(1)
        other, momentum = x, momentum + size / 2 * slope
        for leap in range(LEAPS):
            other = other + size * momentum
            slope = -other @ A
            momentum = momentum + (size if leap < LEAPS - 1 else size / 2) * slope
        after = 0.5 * (other * slope).sum(1) - 0.5 * (momentum**2).sum(1)
        x = np.where((rng.random(chains, dtype=np.float32) < np.exp(np.minimum(after - before, 0)))[:, None], other, x)
        kept[t] = x
    return torch.from_numpy(kept)


class Peer:
    """BlackJAX in the other environment, warmed and waiting."""

    def __init__(self, python: Path, setting: dict, folder: Path):
        self.file = folder / "draws.npy"
        (folder / "setting.json").write_text(json.dumps(setting), encoding="utf-8")
        script = Path(__file__).with_name("hmc_blackjax.py")
        command = [str(python), str(script), str(folder / "setting.json")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = json.loads(self._answer())

    def __call__(self, seed: int) -> tuple[torch.Tensor, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seed} {self.file}\n")
        self.process.stdin.flush()
        seconds = float(self._answer())
        return torch.from_numpy(np.load(self.file)), seconds

    def _answer(self) -> str:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise SystemExit("the BlackJAX side ended; is blackjax installed in that environment?")
        return line


def timed(work: Callable[[int], torch.Tensor]) -> Callable[[int], tuple[torch.Tensor, float]]:
    def measured(seed: int) -> tuple[torch.Tensor, float]:
        begin = time.process_time()
        x = work(seed)
        return x, time.process_time() - begin

    return measured


def judged(name: str, x: torch.Tensor, covariance: torch.Tensor) -> float:
    """The worst effective sample size, after the gate."""
    x = x[50:].double()
    seen = torch.cat([x, x.square()], -1)
    exact = torch.cat([torch.zeros(N, dtype=torch.float64), covariance.diagonal()])
    off = ((seen.mean((0, 1)) - exact) / standard_error(seen)).abs().max().item()
    if not off < 6:
        raise SystemExit(f"{name} is {off:.1f} standard errors off; nothing is reported")
    return effective_sample_size(seen, "mean").min().item()


def measure(chains: int, rounds: int, python: Path | None, folder: Path) -> dict:
    A = precision()
    single, array = A.float(), A.float().numpy()
    contestants: dict[str, Callable[[int], tuple[torch.Tensor, float]]] = {
        "ours": timed(lambda seed: ours(single, chains, seed, True)),
        "autograd": timed(lambda seed: ours(single, chains, seed, False)),
        "numpy": timed(lambda seed: plain(array, chains, seed)),
    }
    setting = dict(chains=chains, steps=STEPS, leaps=LEAPS, step=STEP, jitter=JITTER, spread=SPREAD)
    versions = {}
    if python is not None:
        peer = Peer(python, setting | {"precision": A.tolist()}, folder)
        contestants["blackjax"], versions = peer, peer.versions
    for work in contestants.values():
        work(0)
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    sizes: dict[str, list[float]] = {name: [] for name in contestants}
    for seed in range(1, rounds + 1):
        for name, work in contestants.items():
            x, seconds = work(seed)
            sizes[name].append(judged(name, x, torch.linalg.inv(A)))
            rates[name].append(sizes[name][-1] / seconds)
    median = {name: statistics.median(rate) for name, rate in rates.items()}
    return {
        "effective draws of the worst": {name: round(statistics.median(size)) for name, size in sizes.items()},
        "effective draws a second": {
            name: {"median": round(median[name]), "best": round(max(rate))} for name, rate in rates.items()
        },
        "ours over": {name: round(median["ours"] / rate, 2) for name, rate in median.items() if name != "ours"},
        "peer": versions,
    }


def main() -> None:
    options = asked(__doc__, 7, RESULTS, peer=dict(type=Path, help="the Python of an environment with blackjax"))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if not threads.items() <= os.environ.items():  # they are read when NumPy is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | threads)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    setting = {
        "rounds": options.rounds,
        "dimensions": N,
        "steps": STEPS,
        "leaps": LEAPS,
        "step": STEP,
        "jitter": JITTER,
    }
    report: dict = {
        "machine": {"processor": processor(), "system": platform.system(), "threads": 1},
        "versions": versions | {"lecturecode": __version__},
        "setting": setting | {"dtype": "float32", "clock": "CPU time"},
        "chains": {},
    }
    for chains in CHAINS:
        with tempfile.TemporaryDirectory() as folder:
            report["chains"][chains] = result = measure(chains, options.rounds, options.peer, Path(folder))
        print(chains, json.dumps(result, indent=1), flush=True)
    options.keep.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
