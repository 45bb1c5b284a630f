"""The controls: what each hostile submission does to plain nbgrader, and that the page's table says so."""

from __future__ import annotations

import json

import pytest
from attacks import attacks
from control import FACTS, HONEST, PARTLY, RESULTS, TABLE, controls, kept, reasons, table, together, written
from demo import DEMO, cells, notebook
from inside import MIB, fresh_uid, sandboxed
from unguarded import SECRET, graded

from grading.grade import grade_one
from grading.limits import Limits

pytestmark = sandboxed

ATTACKS = {attack.name: attack for attack in attacks(SECRET)}
CONTROLS = controls()
DID = kept()
QUICK = ("patching/patched-comparisons", "answers/forged-elsewhere", "notebooks/two-alike")
LIMITS = Limits(20.0, memory=1024 * MIB, processes=32, output=6 * MIB, files=500, file_size=16 * MIB)


def test_each_attack_is_a_control_or_has_a_reason():
    assert set(CONTROLS) | set(reasons()) == set(ATTACKS)
    assert not set(CONTROLS) & set(reasons())
    assert set(FACTS["control"]) <= set(CONTROLS)
    as_they_are = {name for name, control in CONTROLS.items() if not control.translated}
    assert as_they_are == {name for name, attack in ATTACKS.items() if attack.control}


def test_what_is_kept_names_every_attack():
    assert list(json.loads(RESULTS.read_text(encoding="utf-8"))) == sorted(ATTACKS)
    assert written(DID) == RESULTS.read_text(encoding="utf-8")


def test_the_table_says_what_is_kept():
    assert TABLE.read_text(encoding="utf-8") == table(DID)
    assert len(table(DID).splitlines()) == 1 + sum(map(bool, DID.values()))


def test_plain_nbgrader_is_fooled_robbed_and_stopped():
    """Full marks by patches of numpy.testing; solutions and the gradebook are open; a duplicated id ends the batch."""
    assert DID["patching/patched-comparisons"] == ["full marks for answers worth 2"]
    assert DID["patching/imported-judge"] == ["full marks, with the solutions that it read"]
    assert DID["answers/forged-elsewhere"] == ["full marks, by writing into the gradebook"]
    assert DID["notebooks/two-alike"] == ["stops the batch"]


@pytest.mark.verify
def test_without_an_attack_everybody_gets_what_is_right():
    status, facts = graded({"a-right": notebook(cells()), "z-partly": PARTLY})
    assert (status, facts) == (
        "",
        {"ended": 0, "scores": HONEST, "changed": [], "letters": 0, "left": 0, "alive": False},
    )


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param(tuple(CONTROLS), marks=pytest.mark.verify)], ids=["quick", "all"]
)
def test_a_control_does_again_what_it_did(names):
    found = together(CONTROLS[name] for name in names)
    others = [name for name in names if found[name] != DID[name]]
    found |= together(CONTROLS[name] for name in others)  # nbgrader's own limits of time are those of a busy clock
    assert found == {name: DID[name] for name in names}


TRANSLATED = {name: control for name, control in CONTROLS.items() if control.translated}


@pytest.mark.parametrize(
    "control",
    [pytest.param(c, id=name, marks=[] if name in QUICK else [pytest.mark.verify]) for name, c in TRANSLATED.items()],
)
def test_a_translation_gains_nothing_here(control):
    verdict = grade_one(control.data, DEMO, fresh_uid(), LIMITS)
    assert (verdict.status, verdict.score) == (control.status, control.score), verdict
