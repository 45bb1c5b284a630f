"""The hostile submissions before plain nbgrader, as a control: `python tests/grading/control.py [name ...]`.

Each attack is handed in to a throw-away course of nbgrader's beside two honest students, and `nbgrader autograde` runs
over the class as a teacher runs it, inside a jail of its own (`unguarded`). What that did is written to controls.json,
and what succeeded to book/course/attacks.csv, beside what happens here. With names only those are run anew.

controls.toml says which attacks are no controls and why, and has for some a translation: the same idea with cells that
know nbgrader, where the bytes of the attack know only the runner of this repository.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks import attacks
from demo import cells, notebook
from unguarded import SECRET, course, graded

__all__ = ["Control", "controls", "kept", "table", "together"]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "controls.json"
TABLE = HERE.parent.parent / "book" / "course" / "attacks.csv"
FACTS = tomllib.loads((HERE / "controls.toml").read_text(encoding="utf-8"))
FULL = 3.0
HONEST = {"a-right": FULL, "z-partly": 2.0}
PARTLY = notebook(cells(normalise="def normalise(weights):\n    return weights\n"))
WITHOUT_END = {  # what else would happen there is not waited for
    "memory": "takes memory without end",
    "processes": "starts processes without end",
    "files": "makes files without end",
    "file_size": "writes to the disk without end",
}


@dataclass(frozen=True)
class Control:
    """`earns` is what its answers are worth, `gains` what is gained where nbgrader gives more than that.

    `status` and `score` are what it gets in this repository's grader.
    """

    attack: str
    what: str
    data: bytes
    status: str
    score: float
    earns: float
    gains: str = ""
    twice: bool = False  # is handed in by a second student too, and the second one's score counts
    translated: bool = False


def controls() -> dict[str, Control]:
    """By the attack's name; those that are not here have a reason."""
    found = {}
    for attack in attacks(SECRET):
        facts = dict(FACTS["control"].get(attack.name, {}))
        own = {name: getattr(attack, name) for name in ("what", "status", "score", "data")}
        if translated := "cells" in facts:
            own["data"] = notebook(cells(**facts.pop("cells")))
        if translated or attack.control:
            facts = {**own, "earns": facts.get("score", attack.score), **facts}
            found[attack.name] = Control(attack.name, translated=translated, **facts)
    return found


def reasons() -> dict[str, str]:
    """Why an attack is no control."""
    return {name: FACTS["reasons"][reason] for reason, names in FACTS["no_control"].items() for name in names}


def done(control: Control) -> list[str]:
    """What the attack did to plain nbgrader, in words; nothing where it was held."""
    who = ["m-attack", "n-attack"] if control.twice else ["m-attack"]
    status, facts = graded({**dict.fromkeys(who, control.data), "a-right": notebook(cells()), "z-partly": PARTLY})
    if not facts:
        return [WITHOUT_END[status]] if status in WITHOUT_END else ["stops the batch" if status else "kills the grader"]
    said, scores = [], facts["scores"]
    if (score := scores.get(who[-1], 0.0)) > control.earns:
        worth = "full marks" if score == FULL else f"{score:g} of {FULL:g} points"
        said.append(control.gains or f"{worth} for answers worth {control.earns:g}")
    if not set(HONEST) <= set(scores):
        said.append("stops the batch")
    elif any(scores[name] != score for name, score in HONEST.items()):
        said.append("changes the scores of others")
    told = {
        "changed": "changes the teacher's files or other submissions",
        "letters": "sends the hidden inputs away",
        "alive": "puts its script into the feedback page",
        "left": "leaves processes behind",
    }
    return list(dict.fromkeys(said + [words for fact, words in told.items() if facts[fact]]))


def table(results: Mapping[str, list[str]]) -> str:
    """The attacks that succeed against plain nbgrader: what they do, what they did there, what happens here."""
    known, text = controls(), io.StringIO()
    rows = []
    for name, did in results.items():
        if did:
            control = known[name]
            rows.append(("; ".join(did), control.what, f"{control.status}, {control.score:g} of {FULL:g} points"))
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["The attack", "What it does to plain nbgrader", "What it gets here"])
    lines.writerows((what, did, here) for did, what, here in sorted(rows))
    return text.getvalue()


def written(results: Mapping[str, list[str]]) -> str:
    """controls.json: for every attack what it did, or why it is no control."""
    known = controls()
    told: dict[str, Any] = {name: {"no control": reason} for name, reason in reasons().items()}
    for name, did in results.items():
        told[name] = {"translated": True} if known[name].translated else {}
        told[name] |= {"in plain nbgrader": did or ["held"]}
    return json.dumps(dict(sorted(told.items())), indent=1) + "\n"


def kept() -> dict[str, list[str]]:
    """What controls.json says that each control did."""
    told = json.loads(RESULTS.read_text(encoding="utf-8"))
    did = {name: facts["in plain nbgrader"] for name, facts in told.items() if "in plain nbgrader" in facts}
    return {name: [] if words == ["held"] else words for name, words in did.items()}


def together(chosen: Iterable[Control]) -> dict[str, list[str]]:
    """What each does, several at once."""
    from tqdm import tqdm

    chosen = list(chosen)
    course()  # once for all threads
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = tqdm(pool.map(done, chosen), total=len(chosen), unit="attack", disable=None)
        return {control.attack: did for control, did in zip(chosen, answers, strict=True)}


def main(names: list[str]) -> None:
    known = controls()
    results = together(known[name] for name in names or known)
    if names:
        results = {name: did for name, did in kept().items() if name in known} | results
    RESULTS.write_text(written(results), encoding="utf-8")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table(results), encoding="utf-8")
    print(f"{sum(map(bool, results.values()))} of {len(results)} attacks succeed against plain nbgrader: {TABLE}")


if __name__ == "__main__":
    main(sys.argv[1:])
