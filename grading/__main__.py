"""`python -m grading release|solutions|grade`: what make.py calls, in the repository's environment."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from grading.batch import Result, alone, grade_class, shown, write
from grading.grade import Assignment
from grading.gradebook import Entry, autograded, record
from grading.handed import apart, strangers
from grading.held import MISSING, Unavailable
from grading.hub import listed, receipts, reworded
from grading.limits import DEFAULT, Limits
from grading.release import ASSIGNMENTS, load, release, solutions
from grading.reports import feedback, row, scores

__all__ = ["grade", "main"]


def grade(
    submissions: Path, out: Path, folder: Path = ASSIGNMENTS, limits: Limits = DEFAULT, workers: int | None = None
) -> list[Result]:
    """Grades a class into `out`, which is then a course folder of nbgrader's with scores.csv beside.

    students/<student>/ has a verdict and a page for each assignment; gradebook.db and autograded/ are nbgrader's.

    Raises: Unavailable where this machine cannot hold submissions; ValueError where there are none, or where another
    run is at work in `out`.
    """
    if sys.platform != "linux" or shutil.which("bwrap") is None:
        raise Unavailable(MISSING)
    apart(submissions, out)
    with alone(out):
        return graded(submissions, out, load(folder, out / "gradebook.db"), limits, workers)


def graded(
    submissions: Path, out: Path, assignments: dict[str, Assignment], limits: Limits, workers: int | None
) -> list[Result]:
    from tqdm import tqdm

    results: list[Result] = []
    rows: list[list[str]] = []

    def one_by_one() -> Iterator[Entry]:
        coming = grade_class(submissions, assignments, out / "students", limits, workers)
        for result in tqdm(coming, unit="submission", disable=None):
            rows.append(row(result, assignments))
            results.append(replace(result, cells=()))  # the sources of a whole class are many
            if result.verdict is None:
                yield Entry(result)
                continue
            name, assignment = result.assignment, assignments[result.assignment]
            write(out / "students" / result.student / f"{name}.html", feedback(result, assignment))
            marking = out / "autograded" / shown(result.student) / name / f"{name}.ipynb"
            notebook = autograded(result, assignment)
            yield Entry(result, receipts(submissions, out, result), reworded(marking, notebook))
            write(marking, notebook)  # when the gradebook knows of it

    listed(out, list(assignments))
    record(out / "gradebook.db", one_by_one(), assignments)
    write(out / "scores.csv", scores(rows, assignments))
    return results


def summary(results: list[Result], out: Path) -> str:
    counts: dict[str, int] = {}
    for result in results:
        status = result.verdict.status if result.verdict else "not handed in"
        counts[status] = counts.get(status, 0) + 1
    earlier = sum(result.again for result in results)
    said = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return f"{said}; {earlier} of them as in an earlier run\nscores.csv, gradebook.db and students/ lie in {out}"


def wheel_and_address() -> tuple[Path, str]:
    """The wheel that was built, and where the published book has it ("" for a book that is not published)."""
    sys.path.insert(0, str(ASSIGNMENTS.parent / "book" / "_extensions"))
    from notebooks import BOOK, repository, wheel

    package, home = wheel(BOOK), repository(BOOK)
    if package is None:
        raise ValueError("build/wheel holds no wheel to release with the notebooks; run `make release`")
    owner, _, name = home.partition("/")
    return package, f"https://{owner.lower()}.github.io/{name}/wheel/{package.name}" if home else ""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="grading")
    parser.add_argument("what", choices=("release", "solutions", "grade"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--submissions", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seconds", type=float, default=DEFAULT.seconds)
    options = parser.parse_args(arguments)
    try:
        if options.what == "release":
            made = release(options.out, *wheel_and_address())
            count = sum(path.suffix == ".ipynb" for path in made)
            print(f"{count} notebooks lie in {options.out}, and all in its assignments.zip")
        elif options.what == "solutions":
            print(f"{len(solutions(options.out))} executed notebooks with solutions lie in {options.out}")
        else:
            limits = replace(DEFAULT, seconds=options.seconds)
            results = grade(options.submissions, options.out, limits=limits, workers=options.workers)
            print(summary(results, options.out))
            for name in strangers(options.submissions, {result.assignment for result in results}):
                print(f"not graded, since no assignment has this name: {name!r}")
    except (ValueError, Unavailable) as error:
        print(f"{type(error).__name__ if isinstance(error, Unavailable) else 'grading'}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
