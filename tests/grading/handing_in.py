"""What a student of the example class hands in, made as an entry of class.toml says, of the assignment's own sources:
the released notebook, the solutions, the wrong answers of checks.py, and the hostile sources under hostile/.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from attacks import FOLDER, FORGE, attacks
from demo import SOLUTIONS

from grading.release import ASSIGNMENTS, checks, source

__all__ = ["FORMS", "grafted", "hand_in", "hostile", "wrong"]

ROOT = ASSIGNMENTS.parent
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
OUTPUT = {"output_type": "display_data", "metadata": {}, "data": {"text/html": [SCRIPT]}}


def hand_in(folder: Path, facts: Mapping[str, Any], grades: Path, released: Mapping[str, bytes]) -> None:
    """Writes <student>/<assignment>/<assignment>.ipynb for each of the recipe's students; the same bytes every time."""
    places = {"repository": str(ROOT), "grades": str(grades), "submissions": str(folder)}
    sources = {"class/" + name: attack["source"] for name, attack in facts.get("attack", {}).items()} | hostile()
    for student, own in facts["student"].items():
        (folder / student).mkdir(parents=True)
        for name, entry in own.items():
            if name == "what":
                continue
            flat = entry.get("flat", False)
            target = folder / student / ("" if flat else name) / f"{name}.ipynb"
            target = target.parent.parent / entry["under"] if "under" in entry else target
            target.parent.mkdir(exist_ok=True)
            if "link" in entry:
                target.symlink_to(Path("../" if flat else "../..", entry["link"], name, f"{name}.ipynb"))
            elif "file" in entry:
                target.write_bytes(files()[entry["file"]])
            else:
                target.write_bytes(notebook(name, entry, released[name], sources, places))


def notebook(
    name: str, entry: Mapping[str, Any], released: bytes, sources: Mapping[str, str], places: Mapping[str, str]
) -> bytes:
    """The released notebook, in whose answer cells stands what the recipe's entry says."""
    written = dict(answers(name))
    for cell, slip in entry.get("slips", {}).items():
        written[cell] = wrong(name)[f"{cell}-check"][slip]
    if "attack" in entry:
        written[entry["at"]] = grafted(sources[entry["attack"]], written[entry["at"]], places)
    left = written if entry.get("left") == "all" else entry.get("left", [])
    if strange := sorted({*left, *entry.get("slips", ())} - set(written)):
        raise ValueError(f"{name} has no cells {strange}")
    content = json.loads(released)
    for cell in content["cells"]:
        grade_id, cell["source"] = identifier(cell), "".join(cell["source"])
        if grade_id in written and grade_id not in left:
            cell["source"] = written[grade_id]
    content["cells"] = FORMS[entry.get("form", "")](content["cells"], entry.get("at", ""))
    data = json.dumps(content, indent=1, ensure_ascii=False).encode()
    return b"\xef\xbb\xbf" + data if entry.get("form") == "byte-order mark" else data


@cache
def wrong(name: str) -> dict[str, dict[str, str]]:
    return checks(name).WRONG


@cache
def answers(name: str) -> dict[str, str]:
    """What stands in the answer cells of a student who knows everything: no marks, no rubric."""
    found = {}
    for cell in source(name, ASSIGNMENTS).cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            lines = [line for line in cell.source.split("\n") if not re.match(r"\s*### (BEGIN|END) SOLUTION", line)]
            found[identifier(cell)] = "\n".join(lines).split("\n\nRubric:")[0]
    return found


def identifier(cell: Mapping[str, Any]) -> str:
    return cell["metadata"].get("nbgrader", {}).get("grade_id", "")


def grafted(attack: str, answer: str, places: Mapping[str, str]) -> str:
    """An attack that was written for a question of the demonstration, or for any, on the question with this answer."""
    function = next(part.name for part in ast.parse(answer).body if isinstance(part, ast.FunctionDef))
    for solution in SOLUTIONS.values():
        attack = attack.replace(solution, answer + "\n")
    attack = re.sub(r"def (?:normalise|free_energy)\((\w+)[\w, ]*\):", rf"def {function}(\1, *rest):", attack)
    if re.search(r"\b(?:normalise|free_energy)\(", attack):
        raise ValueError(f"an attack that calls the demonstration's functions attacks nothing here: {attack[:60]!r}")
    for key, value in {"forge": FORGE, "function": function, "answer": answer}.items():
        attack = attack.replace(f"{{{key}}}", value)
    for key, value in places.items():
        attack = attack.replace(f"{{{key}!r}}", repr(value))
    return f"import numpy as np\n{attack}"


@cache
def hostile() -> dict[str, str]:
    """The sources under hostile/ that change one cell."""
    found = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for attack in tomllib.loads(path.read_text(encoding="utf-8"))["attack"]:
            if len(attack["cells"]) == 1:
                (found[f"{path.stem}/{attack['name']}"],) = attack["cells"].values()
    return found


@cache
def files() -> dict[str, bytes]:
    return {attack.name: attack.data for attack in attacks(ROOT / "nowhere") if attack.name.startswith("notebooks/")}


Cells = list[dict[str, Any]]


def code(text: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "source": text, "outputs": [], "execution_count": None}


def edited_checks(cells: Cells, _: str) -> Cells:
    """Checks that find everything right, and define the functions anew."""
    for cell in cells:
        facts = cell["metadata"].get("nbgrader", {})
        if facts.get("grade") and not facts["solution"]:
            called = re.findall(r"\b([a-z]\w*)\(", cell["source"])
            cell["source"] = "".join(f"{name} = lambda *rest: 0.0\n" for name in dict.fromkeys(called))
            facts["points"] = 1000
    return cells


def scripts(cells: Cells, _: str) -> Cells:
    for cell in cells:
        cell["attachments"] = {"x.svg": {"image/svg+xml": f"<svg>{SCRIPT}</svg>"}}
        if cell["cell_type"] == "code":
            cell["outputs"] = [OUTPUT]
        elif identifier(cell):
            cell["source"] = f"{SCRIPT}\n\n{cell['source']}\n\n~~~\n</pre>{SCRIPT}"
    return [*cells, code(f"print({SCRIPT!r})")]


def own_cells(cells: Cells, _: str) -> Cells:
    """Such as people have who work: magics, a plot, a line that fails."""
    tried = ["%matplotlib inline\nimport matplotlib.pyplot as plt", "plt.plot([1, 2], [2, 1]);", "nothing_of_this_name"]
    return [*cells[:3], *map(code, tried), *cells[3:], code("!pip list\nplt.close('all')")]


def metadata_lost(cells: Cells, _: str) -> Cells:
    """Some editors drop them: what was not written anew is known by its text."""
    for cell in cells:
        if not cell["metadata"].get("nbgrader", {}).get("solution"):
            cell["metadata"] = {}
    return cells


FORMS: dict[str, Callable[[Cells, str], Cells]] = {
    "": lambda cells, _: cells,
    "byte-order mark": lambda cells, _: cells,
    "metadata lost": metadata_lost,
    "own cells": own_cells,
    "edited checks": edited_checks,
    "each cell ten times": lambda cells, _: [copy.deepcopy(cell) for cell in cells for _ in range(10)],
    "an answer deleted": lambda cells, at: [cell for cell in cells if identifier(cell) != at],
    "the other way round": lambda cells, _: cells[::-1],
    "scripts": scripts,
}
