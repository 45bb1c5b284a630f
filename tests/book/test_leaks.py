"""Nothing on the site, in its search index, its sources or what it hands out tells what only teachers may know.

The search is shown to find what it looks for: each secret is planted in every form that a file of the site can have.
"""

import base64
import html
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import coursework
import notebooks
import numpy as np
import pytest
from leaks import BLOCK, PIECE, SHORTEST, Secrets, files_under, gather, leaks, squashed, stems
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from grading.handouts import handouts
from grading.release import ASSIGNMENTS, checks, generate

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"


def public() -> Iterator[str]:
    """What anybody can read besides the assignments: the package, the pages' sources, the tests that the site shows."""
    for folder, pattern in (("lecturecode", "*.py"), ("tests/equations", "*.py"), ("book", "*.md")):
        for path in sorted((ROOT / folder).rglob(pattern)):
            if "_build" not in path.parts:
                yield path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def secrets() -> Secrets:
    return gather(ASSIGNMENTS, public())


def test_nothing_that_is_published_tells_a_secret(site, secrets):
    """Every file of the site and of build/release and build/notebooks, where these were made."""
    published = [site, *(folder for name in ("release", "notebooks") if (folder := ROOT / "build" / name).is_dir())]
    for folder in published:
        files = list(files_under(folder))
        assert len(files) > 10
        assert leaks(files, secrets) == {}


def test_the_site_hands_out_what_release_makes_and_nothing_else(site):
    made = dict(files_under(site / coursework.FOLDER))
    (wheel,) = (site / "wheel").glob("*.whl")
    again = handouts(generate(address=notebooks.published(BOOK, wheel)), wheel)
    assert {*made} == {*again}
    assert [name for name in made if made[name] != again[name]] == []
    assert {Path(name).stem for name in made if name.endswith(".ipynb")} == {
        p.parent.name for p in ASSIGNMENTS.glob("*/*.md")
    }


def test_every_question_has_secrets_and_hardly_any_is_excused(secrets):
    everything = gather(ASSIGNMENTS)
    assert len(secrets.lines) > 0.98 * len(everything.lines)
    places = {*secrets.lines.values()}
    for name in {path.parent.name for path in ASSIGNMENTS.glob("*/*.md")}:
        for question in checks(name).QUESTIONS:
            assert f"{name}, {question.name.removesuffix('-check')}" in places, question.name
        assert f"{name}, checks.py" in places
        assert sum(key.startswith(f"{name}, ") for key in secrets.answers) == 2
    assert len({where.split(",")[0] for where in secrets.numbers.values()}) >= 8
    assert len({where.split(",")[0] for where in secrets.runs.values()}) >= 8


TEXT = (ASSIGNMENTS / "divergences" / "divergences.md").read_text(encoding="utf-8")
WRITTEN = [block for block in BLOCK.findall(TEXT) if "Rubric: " in block]
LINE = max(
    (line for block in BLOCK.findall(TEXT) if block not in WRITTEN for line in block.splitlines()), key=len
).strip()
SENTENCE = max((piece for block in WRITTEN for piece in PIECE.split(block) if piece), key=len)
RUBRIC = max((piece for piece in PIECE.split(WRITTEN[0].partition("Rubric: ")[2]) if piece), key=len)


def hidden() -> np.ndarray:
    """The first array that grading asks `score` for."""
    (question,) = (one for one in checks("divergences").QUESTIONS if one.name == "score-check")
    return np.asarray(question.cases[0].inputs["times"])


def page(text: str) -> bytes:
    return f"<html><body><p>Of the mean.</p>{text}<svg><path d='M 0.25 1'/></svg></body></html>".encode()


def notebook(source: str, output: str) -> bytes:
    outputs = [{"output_type": "stream", "name": "stdout", "text": output.splitlines(keepends=True)}]
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": 1}
    cell |= {"source": source.splitlines(keepends=True), "outputs": outputs}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1).encode()


def archive(name: str, data: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, data)
    return memory.getvalue()


def index(words: list[str]) -> bytes:
    terms = {word: [0, 1] if number % 2 else 1 for number, word in enumerate(words)}
    data = {"docnames": ["intro", "course/students"], "terms": terms, "titleterms": {}}
    return f"Search.setIndex({json.dumps(data)})".encode()


def coloured(code: str) -> str:
    return highlight(f"def fit():\n    {code}\n", PythonLexer(), HtmlFormatter())


PLANTS: dict[str, Callable[[], tuple[str, bytes]]] = {
    "coloured code": lambda: ("a.html", page(coloured(LINE))),
    "code with entities twice": lambda: ("a.html", page(html.escape(html.escape(f"<b>{LINE}</b>")))),
    "a rubric with markup": lambda: ("a.html", page(RUBRIC.replace("a", "<em>&#97;</em>").replace(" ", "\n<wbr>"))),
    "a rubric in a comment": lambda: ("a.html", page(f"<!-- {RUBRIC} -->")),
    "a rubric as words for a picture": lambda: ("a.html", page(f'<img alt="{RUBRIC}" src="x.png">')),
    "a source": lambda: ("source/a.md", f"# A\n\n> {RUBRIC}\n".encode()),
    "a sentence that is broken": lambda: ("a.txt", SENTENCE.replace(" ", "\n  ").encode()),
    "a script": lambda: ("a.js", json.dumps(json.dumps({"é": f"\n\t{RUBRIC}"})).encode()),
    "a title in the search index": lambda: ("searchindex.js", index([]).replace(b"intro", RUBRIC.encode())),
    "a notebook's cell": lambda: ("a.ipynb", notebook(f"x = 1\n{LINE}\n", "")),
    "a notebook's output": lambda: ("a.ipynb", notebook("", f"what = '''{LINE}'''\n")),
    "an input as it is printed": lambda: ("a.ipynb", notebook("", np.array2string(hidden(), precision=4))),
    "an input on a page": lambda: ("a.html", page("<td>" + "</td><td>".join(f"{x:.5f}" for x in hidden()))),
    "one number in full": lambda: ("a.html", page(f"It is {float(hidden()[3])!r}.")),
    "an array as it is sent": lambda: ("a.json", json.dumps({"array": base64.b64encode(hidden()).decode()}).encode()),
    "an archive": lambda: ("a.zip", archive("b.py", LINE.encode())),
    "an archive in an archive": lambda: ("a.zip", archive("b.zip", archive("c.ipynb", notebook(LINE, "")))),
    "a wheel": lambda: ("wheel/a.whl", archive("grading/b.py", LINE.encode())),
    "the name of a file in an archive": lambda: ("a.zip", archive(f"{RUBRIC}.txt", b"")),
    "the inventory": lambda: ("objects.inv", b"#\n#\n#\n# zlib\n" + zlib.compress(RUBRIC.encode())),
}


@pytest.mark.parametrize("form", PLANTS)
def test_a_planted_secret_is_found(secrets, form):
    name, data = PLANTS[form]()
    told = leaks([("b.html", page("")), (name, data)], secrets)
    assert len(told) == 1, told
    assert all(found.startswith(name) for found in told)
    assert all(what.startswith("divergences, ") for whats in told.values() for what in whats)


def test_a_planted_answer_is_found_in_the_words_of_the_index(secrets):
    """The index holds no sentences: a page that has all the words of a model answer holds the answer."""
    where = "divergences, decays-answer"
    words = sorted(secrets.answers[where])
    (told,) = leaks([("searchindex.js", index(words))], secrets).values()
    assert told == {f"{where}: all its words stand under course/students"}
    assert leaks([("searchindex.js", index(words[: len(words) * 3 // 4]))], secrets) == {}
    assert secrets.answers[where] <= stems(WRITTEN[1])


def test_what_lies_open_is_no_secret_but_two_lines_in_a_row_and_sentences_are():
    """A solution put into the book's own sources does not excuse itself."""
    excused = gather(ASSIGNMENTS, [TEXT])
    told = {what for whats in leaks([("divergences.md", TEXT.encode())], excused).values() for what in whats}
    places = {what.split(":")[0] for what in told}
    assert places >= {"divergences, lost", "divergences, score", "divergences, fit", "divergences, merging"}
    assert squashed(LINE) not in excused.lines
    assert leaks([("a.html", page(LINE))], excused) == {}


def test_nothing_honest_is_called_a_leak(secrets):
    """Short lines, numbers that anyone meets, a starter, and the pieces that search goes by."""
    honest = "return p / p.sum(); 0.6931471805599453, 1.4142135623730951, [0.1, 0.2, 0.3, 0.4], [0.25, 0.5, 0.75, 1.0]"
    assert leaks([("a.html", page(honest))], secrets) == {}
    assert (
        leaks(
            [("a.zip", archive("c.py", b"x" * SHORTEST)), ("objects.inv", b"#\n#\n#\n#\n" + zlib.compress(b""))],
            secrets,
        )
        == {}
    )
