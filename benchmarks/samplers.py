"""Error of samplers against calls beside every deterministic sampler of diffusers, k-diffusion and azula.

    python benchmarks/samplers.py                 # prints the ratios, writes benchmarks/results/samplers.json
    python benchmarks/samplers.py --environment DIR      # keeps the environment there, and takes it again
    python benchmarks/samplers.py --ours 1               # ours anew, beside the peers' numbers kept in that file

It makes an environment of its own (a temporary folder where none is given) from PyPI: the three peers in the versions
of PEERS, torch of constraints.txt, and lecturecode from this checkout. There `sampler_race.py` runs, on one thread in
float64, and both sides ask the very same denoiser; `sampler_peers.py` is the peers' half.

mixture    ten Gaussians in 64 dimensions, the digits' classes, whose denoiser is exact; σ from 80;
network    the class-conditional network of book/diffusion/training.md, trained by that page's own function; σ from 20.

The truth is where the probability flow leads each of 512 starts at σ = 0, by `follow` at a tolerance of 1e-9. With 5 to
50 calls, counted on both sides (a peer that cannot make so many makes fewer), errors are the median over the starts of
the distance to the truth, and its root mean square.

Each peer stands on its own best grid, sought for each number of calls by the very error it is judged by, on 32 of the
starts: three to eight grids with either end (the last σ, or on to 0), the best ones of fewer calls, and Nelder and
Mead's search in the first σ, the last σ and Karras' ρ (ρ = ∞ is equal steps in log σ) for those within a factor of 2 of
the best, longer for the first five. The best ten, and the three with the least root mean square, are judged on all 512,
each on its best four grids. Peers that make the same numbers are one. Ours is what `few_calls` chooses on a pilot of
256 other starts, without a look at these.

Gate: at 5 and at 10 calls the best peer's error on the mixture is at least 3 times ours; on the network no peer's is
below ours by more than 2 %, the noise of the choice. It is printed, and nothing fails by it.

`microseconds a call`: CPU time around a denoiser that does nothing, at one row of 64 numbers, 50 calls; the sides
alternate.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from report import asked

ROOT = Path(__file__).parents[1]
PEERS = ["diffusers==0.42.1", "azula==0.11.1", "scipy"]
ALONE = ["k-diffusion==0.1.1.post1"]  # its requirements are a dozen packages that sampling.py does not use
RESULTS = Path(__file__).parent / "results" / "samplers.json"
TOLERANCE = 0.02


def environment(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, made where it is missing."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*install, *PEERS, "torch", str(ROOT), *constraints], check=True)
    subprocess.run([*install, "--no-deps", *ALONE], check=True)
    return python


def table(result: dict) -> None:
    for problem in ("mixture", "network"):
        print(f"\n{problem:9s} calls      ours  best peer   ratio  (rms)  who")
        for calls, line in result[problem]["calls"].items():
            ours, (name, best) = line["ours"], next(iter(line["peers"].items()))
            print(
                f"{calls:>15s} {ours['median']:9.5f} {best['median']:10.5f} {line['ratio']:7.2f} "
                f"{line['ratio of rms']:6.2f}  {ours['chosen']} | {name}"
            )
    gates = {
        "mixture, 5 and 10 calls, at least 3": [result["mixture"]["calls"][calls]["ratio"] for calls in ("5", "10")],
        f"network, 5 to 50 calls, at least {1 - TOLERANCE:g}": [
            line["ratio"] for line in result["network"]["calls"].values()
        ],
    }
    for (name, ratios), least in zip(gates.items(), (3, 1 - TOLERANCE), strict=True):
        print(f"{name}: {'reached' if min(ratios) >= least else 'NOT reached'}, least {min(ratios):.2f}")


def main() -> None:
    about = {"type": int, "default": 0, "help": "1: only ours anew"}
    options = asked(__doc__, 9, RESULTS, environment={"type": Path, "help": "its folder"}, ours=about)
    with tempfile.TemporaryDirectory() as fresh:
        python = environment((options.environment or Path(fresh) / "env").resolve())
        keep = options.keep.resolve()
        race = Path(__file__).with_name("sampler_race.py")
        anew = ["ours"] if options.ours else []
        subprocess.run([str(python), str(race), str(options.rounds), str(keep), *anew], check=True)
    table(json.loads(keep.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
