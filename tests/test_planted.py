"""A sign error planted in the library is caught by an equation test."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from planted import PLANTS, Plant

ROOT = Path(__file__).resolve().parents[1]

RUN = """
import importlib.util, pathlib, sys, pytest
origin = pathlib.Path(importlib.util.find_spec("lecturecode").origin)
assert origin.is_relative_to(pathlib.Path.cwd()), f"the tests would import {origin}"
sys.exit(pytest.main(["-q", "--import-mode=importlib", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def run_in_a_copy(folder: Path, plant: Plant | None, tests: list[str]) -> subprocess.CompletedProcess:
    """Runs the tests in a copy of package, equation tests and chapters, with the error planted in it."""
    nothing_built = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lecturecode", folder / "lecturecode", ignore=nothing_built)
    shutil.copytree(ROOT / "tests" / "equations", folder / "tests" / "equations", ignore=nothing_built)
    for name in ("conftest.py", "harness.py", "labels.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("_*"))  # tests read its cells
    if plant is not None:
        path = folder / plant.file
        path.write_text(path.read_text(encoding="utf-8").replace(plant.right, plant.wrong), encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = verify\nfilterwarnings = error\n", encoding="utf-8")
    paths = os.pathsep.join([str(folder), str(folder / "tests")])
    return subprocess.run(
        [sys.executable, "-c", RUN, *tests],
        cwd=folder.resolve(),
        env=os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_plant_has_one_place_and_one_test(plant):
    assert (ROOT / plant.file).read_text(encoding="utf-8").count(plant.right) == 1
    assert plant.right != plant.wrong
    module, test = plant.test.split("::")
    source = (ROOT / module).read_text(encoding="utf-8")
    assert re.search(rf'^@equation\("[^"]+"\)\n(@pytest.+\n)*def {test}\(', source, re.MULTILINE)


def test_names_are_unique_and_each_chapter_has_a_fast_one():
    assert len({plant.name for plant in PLANTS}) == len(PLANTS)
    modules = {plant.test.split("::")[0] for plant in PLANTS}
    assert {plant.test.split("::")[0] for plant in PLANTS if plant.fast} == modules


@pytest.mark.parametrize(
    "plant",
    [pytest.param(p, id=p.name, marks=[] if p.fast else pytest.mark.verify) for p in PLANTS],
)
def test_a_planted_error_is_caught(plant, tmp_path):
    ran = run_in_a_copy(tmp_path, plant, [plant.test])
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert re.search(r"\d+ failed", ran.stdout), ran.stdout
    assert "error" not in ran.stdout.splitlines()[-1], ran.stdout
    assert re.search(r"AssertionError: residual \S+ above", ran.stdout), ran.stdout


@pytest.mark.verify
def test_without_a_planted_error_the_same_tests_pass(tmp_path):
    tests = sorted({plant.test for plant in PLANTS})
    ran = run_in_a_copy(tmp_path, None, tests)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(tests)} passed" in ran.stdout
