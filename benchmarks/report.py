"""What all benchmarks share: their arguments and the name of the processor."""

import argparse
import platform
from pathlib import Path
from typing import Any


def asked(doc: str | None, rounds: int, keep: Path, **more: dict[str, Any]) -> argparse.Namespace:
    """--rounds, --keep, and an option for each of `more`; at least five rounds."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    for name, about in more.items():
        parser.add_argument(f"--{name}", **about)
    parser.add_argument("--keep", type=Path, default=keep, help="the JSON file to write")
    options = parser.parse_args()
    if options.rounds < 5:
        parser.error("fewer than five rounds say little")
    return options


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
