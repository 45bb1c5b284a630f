"""What only teachers may have, and whether it stands in a file: as it is, as HTML or JSON, in an archive, in an index.

A secret is a line of a solution, of a hidden check or of checks.py, a piece of a model answer or rubric, or a number or
an array that grading asks for. It is telling only if nobody could have it elsewhere: code that stands in the package,
in the book's sources or in the released notebook is no secret. Text is compared without spaces, markup and signs, so
that neither colours of code nor entities nor escapes hide it.
"""

import base64
import html
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import numpy as np
from sphinx.search.en import SearchEnglish

from grading.exchange import dumps, loads
from grading.release import checks, generate, names

SHORTEST = 20  # letters and digits of a telling line
ANCHOR = 10  # of them by which a line is looked up
RARE = 12  # new words of a model answer, above which a page of the index that has them all is one that holds it
BLOCK = re.compile(r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)### END (?:SOLUTION|HIDDEN TESTS)", re.DOTALL)
TAG = re.compile(r"</?[a-zA-Z!][^<>]*>")
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d*(?:e[-+]?\d+)?")
PIECE = re.compile(r"\$+[^$]+\$+|`[^`]+`|(?<=[.;:?!])\s|\n")
OPAQUE = {".woff2", ".png", ".jpg", ".ico"}
ENGLISH = SearchEnglish({})


def squashed(text: str) -> str:
    """Letters and digits alone, in small letters, whatever escapes they were written in."""
    text = html.unescape(html.unescape(text))
    text = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), text)
    return re.sub(r"[\W_]+", "", re.sub(r"\\+[nrt]", "", text).lower())


def stems(text: str) -> set[str]:
    """The words as Sphinx puts them into the search index."""
    words = (word.lower() for word in ENGLISH.split(text))
    return {ENGLISH.stem(word) for word in words if ENGLISH.word_filter(word)}


def ordinary(value: float) -> bool:
    """A fraction of small whole numbers, its logarithm or its root: a number that others have, too."""
    if not math.isfinite(value) or abs(value) < 1e-3:
        return True
    forms = (value, math.exp(value) if abs(value) < 20 else 0.5, value**2, value / math.pi)
    return any(abs(form - Fraction(form).limit_denominator(1000)) <= 1e-9 * abs(form) for form in forms)


def runs(values: list[float]) -> Iterator[tuple[float, ...]]:
    """Four numbers in a row, to three decimals, where they are no pattern."""
    rounded = [round(value, 3) for value in values]
    for place in range(len(rounded) - 3):
        four = tuple(rounded[place : place + 4])
        if len({abs(value) for value in four if value != round(value, 1)}) == 4:
            yield four


def leaves(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    elif not isinstance(value, str | None):
        yield np.asarray(value)


@dataclass
class Secrets:
    lines: dict[str, str]  # squashed: where it is from
    numbers: dict[str, str]  # to nine digits
    runs: dict[tuple[float, ...], str]
    answers: dict[str, set[str]]  # a model answer: its words that the student's notebook lacks

    def __post_init__(self):
        self.anchors: dict[str, list[str]] = {}
        for line in self.lines:
            for place in range(len(line) - ANCHOR + 1):
                self.anchors.setdefault(line[place : place + ANCHOR], []).append(line)

    def lines_in(self, text: str) -> set[str]:
        """Every window of a line is an anchor, so that it is enough to look at the text from time to time."""
        found = set()
        for place in range(0, len(text) - ANCHOR + 1, SHORTEST - ANCHOR + 1):
            for line in self.anchors.get(text[place : place + ANCHOR], ()):
                if line not in found and line in text[max(0, place - len(line)) : place + ANCHOR + len(line)]:
                    found.add(line)
        return found

    def told(self, text: str) -> set[str]:
        """What a text tells, in words: with its markup, which may hold comments, and without."""
        plain = TAG.sub("", text)
        found = {f"{self.lines[line]}: …{line}…" for line in self.lines_in(squashed(plain))}
        if plain != text:
            found |= {f"{self.lines[line]}: …{line}…" for line in self.lines_in(squashed(text))}
        values = [float(number) for number in NUMBER.findall(html.unescape(TAG.sub(" ", text)))]
        found |= {f"{self.numbers[key]}: {key}" for key in map(digits, values) if key in self.numbers}
        return found | {f"{self.runs[four]}: {four}" for four in runs(values) if four in self.runs}

    def indexed(self, index: str) -> set[str]:
        """The model answers whose new words all stand under one page of a search index."""
        data = json.loads(index[index.index("{") : index.rindex("}") + 1])
        words: dict[int, set[str]] = {}
        for term, pages in [*data["terms"].items(), *data["titleterms"].items()]:
            for page in pages if isinstance(pages, list) else [pages]:
                words.setdefault(page, set()).add(term)
        return {
            f"{where}: all its words stand under {data['docnames'][page]}"
            for where, wanted in self.answers.items()
            for page, here in words.items()
            if len(wanted & here) >= 0.9 * len(wanted)
        }


def digits(value: float) -> str:
    return f"{value:.9g}"


def texts(name: str, data: bytes) -> Iterator[tuple[str, str]]:
    """The file, or whatever it packs."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield f"{name}!{member}", member
                yield from texts(f"{name}!{member}", archive.read(member))
    elif name.endswith(".inv"):
        head, rest = data.split(b"\n", 4)[:4], data.split(b"\n", 4)[4]
        yield name, (b"\n".join(head) + zlib.decompress(rest)).decode()
    elif Path(name).suffix not in OPAQUE:
        yield name, data.decode("utf-8", "replace")


def leaks(files: Iterable[tuple[str, bytes]], secrets: Secrets) -> dict[str, set[str]]:
    """What each file tells that it must not; nothing where all is well."""
    found: dict[str, set[str]] = {}
    for file, data in files:
        for name, text in texts(file, data):
            told = secrets.told(text)
            if name.endswith("searchindex.js"):
                told |= secrets.indexed(text)
            if told:
                found[name] = told
    return found


def files_under(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


@dataclass
class Gathered:
    """All that an assignment's folder has and a student's notebook lacks, and what of it nothing can excuse."""

    secrets: Secrets
    never: set[str]


@cache
def gathered(assignments: Path) -> Gathered:
    code: dict[str, str] = {}
    whole: dict[str, str] = {}  # two lines in a row, and arrays
    prose: dict[str, str] = {}
    numbers: dict[str, str] = {}
    rows: dict[tuple[float, ...], str] = {}
    answers: dict[str, set[str]] = {}
    starters = []
    released = generate(assignments)
    for name in names(assignments):
        starter = "\n".join(cell.source for cell in nbformat.reads(released[name].decode(), as_version=4).cells)
        starters.append(starter)
        for cell in jupytext.read(assignments / name / f"{name}.md", fmt="md:myst").cells:
            key = f"{name}, {cell.metadata.get('nbgrader', {}).get('grade_id')}"
            for block in BLOCK.findall(cell.source):
                if cell.cell_type == "code":
                    lines = [squashed(line) for line in block.splitlines() if line.strip()]
                    code |= dict.fromkeys(lines, key)
                    whole |= {one + two: key for one, two in pairwise(lines)}
                else:
                    prose |= dict.fromkeys((squashed(piece) for piece in PIECE.split(block)), key)
                    answers[key] = stems(block) - stems(starter)
        for line in (assignments / name / "checks.py").read_text(encoding="utf-8").splitlines():
            if not line.startswith(("import ", "from ")):
                code[squashed(line)] = f"{name}, checks.py"
        for question in checks(name, assignments).QUESTIONS:
            key = f"{name}, {question.name}"
            asked = [[dict(case.inputs), case.answer] for case in question.cases]
            for array in leaves(loads(dumps(asked))):
                sent = base64.b64encode(array.tobytes()).decode()[:48]
                if len(set(sent)) > RARE:
                    whole[squashed(sent)] = f"{key}, an array"
                if array.dtype.kind == "f":
                    values = [float(value) for value in array.ravel()]
                    numbers |= {digits(value): key for value in values if not ordinary(value)}
                    rows |= dict.fromkeys(runs(values), key)
    long = {line: where for line, where in (code | prose | whole).items() if len(line) >= SHORTEST}
    first = Secrets(long, numbers, rows, answers)
    told = set().union(*(first.lines_in(squashed(text)) for text in starters))
    shown = [float(number) for text in starters for number in NUMBER.findall(text)]
    common, common_rows = {*map(digits, shown)}, {*runs(shown)}
    secrets = Secrets(
        {line: where for line, where in long.items() if line not in told},
        {key: where for key, where in numbers.items() if len(key) > 8 and key not in common},
        {key: where for key, where in rows.items() if key not in common_rows},
        {key: words for key, words in answers.items() if len(words) >= RARE},
    )
    return Gathered(secrets, {*whole, *(piece for piece in prose if len(piece) >= 2 * SHORTEST)})


def gather(assignments: Path, public: Iterable[str] = ()) -> Secrets:
    """All secrets of a folder of assignments. Lines of code that stand in the `public` texts are none, nor are turns of
    phrase; but sentences are, and two lines of a solution in a row, wherever they stand.
    """
    all_of_it = gathered(assignments)
    open_to_all = set().union(*(all_of_it.secrets.lines_in(squashed(text)) for text in public)) - all_of_it.never
    lines = {line: where for line, where in all_of_it.secrets.lines.items() if line not in open_to_all}
    return replace(all_of_it.secrets, lines=lines)
