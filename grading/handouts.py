"""What students get, as files by name: the notebooks, a page to start from, the environment, the package, one zip."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["ARCHIVE", "START", "environment", "handouts", "start_page"]

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(__file__).with_name("start-here.md")
ARCHIVE, START = "assignments.zip", "start-here.md"


def handouts(released: Mapping[str, bytes], wheel: Path) -> dict[str, bytes]:
    """<name>/<name>.ipynb for each, the rest beside them, and the archive of all these. The same bytes every time."""
    files = {f"{name}/{name}.ipynb": data for name, data in released.items()}
    files[START] = start_page(released, wheel.name).encode()
    files["environment.yml"] = environment().encode()
    files[wheel.name] = wheel.read_bytes()
    return {**files, ARCHIVE: packed(files)}


def packed(files: Mapping[str, bytes]) -> bytes:
    """One archive, in which each entry has the same date and anybody may read it, on whatever system it is made."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"assignments/{name}")
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return memory.getvalue()


def start_page(released: Mapping[str, bytes], wheel: str) -> str:
    lines = "\n".join(f"- [{title(data)}]({name}/{name}.ipynb)" for name, data in sorted(released.items()))
    return PAGE.read_text(encoding="utf-8").replace("{assignments}", lines).replace("{wheel}", wheel)


def title(notebook: bytes) -> str:
    """Its first heading."""
    cells = ("".join(cell["source"]) for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "markdown")
    return next(line.removeprefix("# ") for text in cells for line in text.splitlines() if line.startswith("# "))


def environment() -> str:
    """The package's part of the repository's environment.yml, and JupyterLab."""
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").split("  # the book\n")[0].splitlines()
    kept = [line for line in lines if not line.startswith("#")]
    return "\n".join([*kept, "  - ipykernel >=6.29,<8", "  - jupyterlab >=4.2,<5", ""])
