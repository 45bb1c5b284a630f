"""From assignments/<name>/<name>.md to what students get and to what teachers keep, by nbgrader's own converters.

A course folder of nbgrader's is made in a temporary place, with nothing in it but the notebooks; checks.py never lies
beside them. `generate` also fills a gradebook with the assignments, their cells and points.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from grading.handouts import START, handouts

if TYPE_CHECKING:
    from grading.grade import Assignment

__all__ = ["ASSIGNMENTS", "generate", "load", "names", "release", "solutions"]

ROOT = Path(__file__).resolve().parent.parent
ASSIGNMENTS = ROOT / "assignments"
MARKS = ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "MARK SCHEME")
INSTALL = """try:
    import lecturecode
except ModuleNotFoundError:
    from glob import glob

    found = [*glob("lecturecode-*.whl"), *glob("../lecturecode-*.whl"){address}]
    if not found:
        raise ModuleNotFoundError("the package is missing: put lecturecode-*.whl beside this notebook") from None
    get_ipython().run_line_magic("pip", f"install --quiet {{found[0]}}")"""


def names(folder: Path = ASSIGNMENTS) -> list[str]:
    """Every folder that holds a notebook of its own name. Raises: ValueError where there is none."""
    found = sorted(path.parent.name for path in folder.glob("*/*.md") if path.stem == path.parent.name)
    if not found:
        raise ValueError(f"{folder} holds no assignment: a folder <name> with <name>.md and checks.py in it")
    return found


def source(name: str, folder: Path, address: str = "") -> Any:
    """The teacher's notebook, with the cell that installs the package before all others. Its cells' ids are fixed."""
    import jupytext
    from nbformat.v4 import new_code_cell

    notebook = jupytext.read(folder / name / f"{name}.md", fmt="md:myst")
    install = INSTALL.format(address=f", {address!r}" if address else "")
    notebook.cells.insert(0, new_code_cell(install))
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place}"
    for key in set(notebook.metadata) - {"kernelspec", "language_info"}:
        del notebook.metadata[key]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def prepared(path: Path) -> Path:
    """A database with the version of its tables in it; nbgrader makes the tables, and would ask a program `alembic`
    on the PATH for that version, where no program of .venv is.
    """
    if not path.exists():
        import nbgrader
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        folder = Path(str(nbgrader.__file__)).parent
        config = Config(folder / "alembic.ini")
        config.set_main_option("script_location", str(folder / "alembic").replace("%", "%%"))
        head = ScriptDirectory.from_config(config).get_current_head()
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
            database.execute("INSERT INTO alembic_version VALUES (?)", (head,))
        path.chmod(0o600)
    return path


@contextmanager
def course(folder: Path, address: str = "", gradebook: Path | None = None) -> Iterator[tuple[Path, Any]]:
    """nbgrader's course folder with the sources, and what its converters are told; gone at the end."""
    import nbformat
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="lecturecode-course-") as root:
        for name in names(folder):
            target = Path(root, "source", name, f"{name}.ipynb")
            target.parent.mkdir(parents=True)
            nbformat.write(source(name, folder, address), target)
        config = Config()
        config.CourseDirectory.root = root
        config.CourseDirectory.db_url = f"sqlite:///{prepared(gradebook or Path(root, 'gradebook.db'))}"
        yield Path(root), config


def convert(kind: str, name: str, config: Any) -> None:
    """One of nbgrader's converters on one assignment. Raises: ValueError with what it said."""
    from nbgrader import converters
    from nbgrader.coursedir import CourseDirectory

    place = CourseDirectory(config=config, assignment_id=name)
    converter: Any = getattr(converters, kind)(coursedir=place, config=config)
    converter.log.setLevel("ERROR")
    try:
        converter.start()
    except (Exception, SystemExit) as error:
        hint = "a gradebook with submissions in it takes no other cells: move it away to begin a new one"
        raise ValueError(f"nbgrader's {kind} failed for {name}; what it said is above ({hint})") from error


def generate(folder: Path = ASSIGNMENTS, address: str = "", gradebook: Path | None = None) -> dict[str, bytes]:
    """The released notebooks by name. Raises: ValueError where one would still hold a solution."""
    import nbformat

    released = {}
    with course(folder, address, gradebook) as (root, config):
        for name in names(folder):
            convert("GenerateAssignment", name, config)
            data = (root / "release" / name / f"{name}.ipynb").read_bytes()
            for cell in nbformat.reads(data.decode(), as_version=4).cells:
                if any(mark in cell.source for mark in MARKS) or cell.get("outputs"):
                    raise ValueError(f"assignment {name}: the released notebook still holds {cell.source[:60]!r}")
            released[name] = data
    return released


def checks(name: str, folder: Path = ASSIGNMENTS) -> ModuleType:
    path = folder / name / "checks.py"
    label = "checks_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(label, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"assignment {name} has no checks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(folder: Path = ASSIGNMENTS, gradebook: Path | None = None) -> dict[str, Assignment]:
    """Every assignment as grading needs it; with a gradebook, its cells are entered there."""
    from grading.grade import Assignment  # and with it the sandbox, which the book is built without

    released = generate(folder, gradebook=gradebook)
    return {name: Assignment(name, data, checks(name, folder).QUESTIONS) for name, data in released.items()}


def release(out: Path, wheel: Path, address: str = "", folder: Path = ASSIGNMENTS) -> list[Path]:
    """Writes what students get (`grading.handouts`) into `out`, in place of an earlier release; returns the files.

    Raises: ValueError where `out` holds anything else.
    """
    if out.exists() and any(out.iterdir()) and not (out / START).is_file():
        raise ValueError(f"{out} holds other files, which a release would delete: name a new folder")
    files = handouts(generate(folder, address), wheel)
    if out.exists():
        shutil.rmtree(out)
    for name, data in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    return [out / name for name in sorted(files)]


def solutions(out: Path, folder: Path = ASSIGNMENTS) -> list[Path]:
    """The executed notebooks with solutions and rubrics, open to nobody else. Raises: ValueError where a cell fails."""
    made = []
    with course(folder) as (root, config):
        os.makedirs(out, mode=0o700, exist_ok=True)
        for name in names(folder):
            convert("GenerateAssignment", name, config)  # the converter of solutions wants the assignment known
            convert("GenerateSolution", name, config)
            data = (root / "solution" / name / f"{name}.ipynb").read_bytes()
            outputs = [output for cell in json.loads(data)["cells"] for output in cell.get("outputs", ())]
            if errors := [output["evalue"] for output in outputs if output["output_type"] == "error"]:
                raise ValueError(f"assignment {name}: a cell of the solution fails: {errors[0]}")
            made.append(out / f"{name}.ipynb")
            made[-1].write_bytes(data)
    return made
