"""The hostile submissions: those written as cells (hostile/*.toml), those written as files (hostile/notebooks.py)."""

from __future__ import annotations

import importlib.util
import tomllib
from dataclasses import dataclass
from pathlib import Path

from demo import cells, notebook

FOLDER = Path(__file__).resolve().parent / "hostile"
FORGE = """
import os
def forge(data):
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2:
            try:
                os.write(descriptor, data)
            except OSError:
                pass
"""


@dataclass(frozen=True)
class Attack:
    name: str
    what: str
    status: str
    score: float
    data: bytes
    seconds: float = 120.0
    quick: bool = False
    control: bool = False  # is handed in to plain nbgrader too, as it is
    root: bool = False  # held only where root gives each submission a real uid


def attacks(secret: Path) -> list[Attack]:
    """All of them; `secret` is a file outside that those which search know by its path."""
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["attack"]:
            changed = {
                name: source.replace("{forge}", FORGE).replace("{secret!r}", repr(str(secret)))
                for name, source in entry.pop("cells").items()
            }
            name = f"{path.stem}/{entry.pop('name')}"
            found.append(Attack(name, data=notebook(cells(**changed)), **entry))
    specification = importlib.util.spec_from_file_location("hostile_notebooks", FOLDER / "notebooks.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    for name, (what, status, score, data) in module.FILES.items():
        found.append(Attack(f"notebooks/{name}", what, status, score, data, quick=name in QUICK, control=True))
    return found


QUICK = {
    "no-json",
    "nested",
    "many-parts",
    "giant-cell",
    "half-characters",
    "two-alike",
    "edited-checks",
    "no-metadata",
}
