"""What students get holds no solution, no rubric and no hidden check; what teachers get holds them all."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
import stat
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import nbformat
import pytest
import yaml
from course import CHECKS, NOTEBOOK, assignments
from leaks import gather, leaks

from grading import handouts as module
from grading.handouts import handouts
from grading.release import ASSIGNMENTS, generate, load, names, release, solutions

BLOCK = re.compile(r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)### END (?:SOLUTION|HIDDEN TESTS)", re.DOTALL)
WHEEL = "lecturecode-9.9-py3-none-any.whl"


@cache
def released() -> dict[str, bytes]:
    return generate()


def secrets(name: str) -> set[str]:
    """Lines that only a teacher has: of solutions, hidden checks and rubrics, and those of checks.py."""
    own = ASSIGNMENTS / name
    text, checks = (own / f"{name}.md").read_text("utf-8"), (own / "checks.py").read_text("utf-8")
    public = {line.strip() for line in BLOCK.sub("", text).splitlines()}
    hidden = [line for block in BLOCK.findall(text) for line in block.splitlines()] + checks.splitlines()
    return {line.strip() for line in hidden if len(line.strip()) > 12} - public


@pytest.mark.parametrize("name", names())
def test_nothing_released_holds_a_solution_or_a_hidden_check(name):
    told = secrets(name)
    assert len(told) > 30
    sources = [cell.source for cell in nbformat.reads(released()[name].decode(), as_version=4).cells]
    lines = {line.strip() for source in sources for line in source.splitlines()}
    common = {line for line in told if line.startswith(("import ", "from "))}
    assert not (lines & told) - common
    assert not re.search(r"SOLUTION|HIDDEN|Rubric|QUESTIONS|WRONG", "\n".join(sources))


def test_nothing_that_students_get_tells_a_secret(wheel):
    """Nor does the archive. tests/book/test_leaks.py plants secrets in every form, to show that they would be found."""
    files = handouts(released(), wheel)
    secrets = gather(ASSIGNMENTS)
    assert leaks(files.items(), secrets) == {}
    name = names()[0]
    told = leaks({**files, "more.md": (ASSIGNMENTS / name / f"{name}.md").read_bytes()}.items(), secrets)
    assert {*told} == {"more.md"}


def test_hidden_checks_and_model_answers_count_as_secrets(folder):
    secrets = gather(folder)
    assert {*secrets.lines.values()} >= {
        f"small, {part}" for part in ("normalise", "normalise-check", "why", "checks.py")
    }
    hidden = b"assert np.allclose(normalise(np.ones((5, 2))), 0.5)"
    assert leaks([("a.py", hidden)], secrets).keys() == {"a.py"}
    assert leaks([("a.py", b"assert np.allclose(normalise(np.ones(4)), 0.25)")], secrets) == {}


@pytest.mark.parametrize("name", names())
def test_a_released_notebook_is_whole(name):
    notebook = nbformat.reads(released()[name].decode(), as_version=4)
    nbformat.validate(notebook)
    first, *cells = notebook.cells
    tree = ast.parse(first.source)  # also where IPython is not: a magic would be reported at every grading
    assert "lecturecode" in ast.unparse(tree)
    assert not first.metadata
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    own = [cell.source for cell in cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert all("YOUR CODE HERE" in source or source == "YOUR ANSWER HERE" for source in own)
    assert len(own) == (ASSIGNMENTS / name / f"{name}.md").read_text("utf-8").count("### BEGIN SOLUTION") > 2


def test_the_same_sources_are_the_same_release():
    assert {name: hashlib.sha256(data).hexdigest() for name, data in generate().items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in released().items()
    }


def test_a_teacher_s_course_as_grading_needs_it():
    found = load()
    assert len(found) >= 8
    assert {name: one.release for name, one in found.items()} == released()
    assert all(one.questions for one in found.values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return assignments(tmp_path / "assignments")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / WHEEL
    path.write_bytes(b"a wheel")
    return path


def test_the_zip_holds_all_that_a_student_needs_and_nothing_else(folder, tmp_path, wheel):
    out = tmp_path / "release"
    release(out, wheel, folder=folder)
    (out / "old.ipynb").write_text("of an earlier release")
    made = release(out, wheel, folder=folder)
    files = {"small/small.ipynb", "start-here.md", "environment.yml", WHEEL}
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == files | {
        "assignments.zip"
    }
    assert set(made) == {out / name for name in [*files, "assignments.zip"]}
    with zipfile.ZipFile(out / "assignments.zip") as archive:
        assert {*archive.namelist()} == {f"assignments/{name}" for name in files}
        assert all(archive.read(f"assignments/{name}") == (out / name).read_bytes() for name in files)
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o644}
    page = (out / "start-here.md").read_text("utf-8")
    assert "\n- [Small](small/small.ipynb)\n" in page
    assert WHEEL in page
    assert "{" not in page
    environment = yaml.safe_load((out / "environment.yml").read_text("utf-8"))
    assert {line.split()[0] for line in environment["dependencies"]} >= {"python", "numpy", "pytorch", "jupyterlab"}
    again = (out / "assignments.zip").read_bytes()
    release(out, wheel, folder=folder)
    assert (out / "assignments.zip").read_bytes() == again


def test_a_release_deletes_nothing_but_a_release(folder, tmp_path, wheel):
    own = tmp_path / "home"
    own.mkdir()
    (own / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="home holds other files"):
        release(own, wheel, folder=folder)
    assert (own / "thesis.tex").read_text() == "years of work"


def run_first_cell(folder: Path, address: str, work: Path) -> list[str]:
    """What its first cell installs in a Python without the package, with a stand-in for IPython's magic."""
    source = nbformat.reads(generate(folder, address)["small"].decode(), as_version=4).cells[0].source
    (work / "small").mkdir(parents=True, exist_ok=True)
    stand_in = (
        "class get_ipython:\n    def run_line_magic(self, *words):\n        print('|'.join(words))\n"
        "import sys\nsys.modules['lecturecode'] = None\n"
    )
    code = [sys.executable, "-I", "-S", "-c", stand_in + source]
    answer = subprocess.run(code, cwd=work / "small", capture_output=True, text=True, timeout=60)
    return answer.stdout.split() if answer.returncode == 0 else answer.stderr.strip().splitlines()[-1:]


def test_the_first_cell_installs_the_package_where_it_is_missing(folder, tmp_path):
    work = tmp_path / "unpacked"
    (missing,) = run_first_cell(folder, "", work)
    assert missing.startswith("ModuleNotFoundError: the package is missing: put lecturecode-")
    address = f"https://example.org/wheel/{WHEEL}"
    assert run_first_cell(folder, address, work) == ["pip|install", "--quiet", address]
    (work / WHEEL).write_bytes(b"")
    assert run_first_cell(folder, address, work) == ["pip|install", "--quiet", f"../{WHEEL}"]


def test_solutions_are_executed_whole_and_the_teacher_s_alone(folder, tmp_path):
    out = tmp_path / "solutions"
    (made,) = solutions(out, folder)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    cells = json.loads(made.read_text("utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    assert "return weights / weights.sum" in text
    assert "Rubric: 3 points" in text
    assert [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"] == [1, 2, 3, 4]
    (folder / "small" / "small.md").write_text(NOTEBOOK.replace("return weights / w", "return 2 * weights / w"))
    with pytest.raises(ValueError, match="small: a cell of the solution fails"):
        solutions(out, folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    ### END SOLUTION\n```", "```", "nbgrader's GenerateAssignment failed for small"),
        ("Write `normalise", "The ### BEGIN MARK SCHEME\nWrite `normalise", "failed for small|still holds"),
        ("assert np.", "# see the HIDDEN TESTS\nassert np.", "still holds"),
    ],
)
def test_a_source_that_would_tell_too_much_is_not_released(folder, old, new, said):
    text = NOTEBOOK.replace(old, new, 1)
    assert text != NOTEBOOK
    (folder / "small" / "small.md").write_text(text)
    with pytest.raises(ValueError, match=said):
        generate(folder)


def test_a_folder_without_assignments_and_one_without_checks(folder, tmp_path):
    with pytest.raises(ValueError, match="holds no assignment"):
        names(tmp_path / "nowhere")
    (folder / "small" / "checks.py").unlink()
    with pytest.raises(ValueError, match=r"small has no checks\.py"):
        load(folder)
    (folder / "small" / "checks.py").write_text(CHECKS.replace("normalise-check", "bonus"))
    with pytest.raises(ValueError, match="grade_id"):
        load(folder)


def test_the_start_page_names_no_other_file():
    page = Path(module.__file__).with_name("start-here.md").read_text("utf-8")
    assert set(re.findall(r"\{(\w+)\}", page)) == {"assignments", "wheel"}
    assert importlib.util.find_spec("nbgrader") is not None
