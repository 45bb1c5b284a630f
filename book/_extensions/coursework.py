"""The assignments on the site: the folder `assignments/`, just as `make release` makes it, and a table of them.

```{assignments}``` is the table, in the order in which the book can be read up to each; {handout}`text <file>` links to
one of the files. Solutions and checks never come near the site: what is written here is what nbgrader released.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
from docutils import nodes
from docutils.parsers.rst import Directive
from notebooks import chapters, published, repository, wheel

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "assignments"
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
LINK = re.compile(r"(?:(?P<text>.+?)\s*<)?(?P<file>[^<>]+?)>?", re.DOTALL)
SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z])")
COLUMNS = {"Assignment": 60, "Read before": 25, "Points": 15}  # with their shares of the width


class Task(NamedTuple):
    """What the table says of one assignment: `after` is the last page of the book that it builds on."""

    name: str
    title: str
    about: str
    after: str
    checked: float
    written: float


def teaching(module: str) -> Any:
    """A module of grading/, which is no installed package. Raises: ValueError where nbgrader is missing."""
    if importlib.util.find_spec("nbgrader") is None:
        raise ValueError(
            "nbgrader, which makes the students' notebooks, is missing: pip install -e '.[book,assignments]'"
        )
    sys.path.append(str(ROOT))  # the last place, where it can hide nothing
    try:
        return importlib.import_module(f"grading.{module}")
    finally:
        sys.path.remove(str(ROOT))


@functools.cache
def handed_out(book: Path) -> dict[str, bytes]:
    """The files for students by name, none where the repository of this book has no assignments."""
    folder, package = book.parent / FOLDER, wheel(book)
    if not folder.is_dir():
        return {}
    if package is None:
        raise ValueError("build/wheel holds no wheel to hand out with the assignments; run `make book`")
    released = teaching("release").generate(folder, published(book, package))
    return teaching("handouts").handouts(released, package)


def write(outdir: Path, book: Path, kinds: tuple[str, ...] = ("",)) -> list[Path]:
    """The files for students whose names end so, under outdir/assignments; returns them."""
    written = []
    for name, data in handed_out(book).items():
        if name.endswith(kinds):
            written.append(outdir / FOLDER / name)
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            written[-1].write_bytes(data)
    return written


def tasks(book: Path) -> list[Task]:
    """Each assignment, those first that can be done first."""
    pages = {}
    for document, _ in chapters(book):
        path = book / f"{document}.md"
        if path.is_file() and (title := TITLE.search(path.read_text(encoding="utf-8"))):
            pages[title[1]] = document
    order = list(pages.values())
    found = [
        task(path, pages) for path in sorted((book.parent / FOLDER).glob("*/*.md")) if path.stem == path.parent.name
    ]
    return sorted(found, key=lambda one: order.index(one.after) if one.after else len(order))


def task(path: Path, pages: dict[str, str]) -> Task:
    cells = jupytext.read(path, fmt="md:myst").cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    title, opening = text.removeprefix("# ").split("\n\n")[:2]
    needs = re.search(r"^\*\*Builds on\*\*.*$", text, flags=re.MULTILINE)
    named = [pages[page] for page in re.findall(r"on the page \*([^*]+)\*", needs[0] if needs else "") if page in pages]
    order = list(pages.values())
    points = {True: 0.0, False: 0.0}  # of answers in words, of checks
    for cell in cells:
        facts = cell.metadata.get("nbgrader", {})
        if facts.get("grade"):
            points[facts["solution"]] += facts["points"]
    last = max(named, key=order.index, default="")
    return Task(path.stem, title, SENTENCE.split(opening)[0], last, points[False], points[True])


def address_of(document: str, file: str) -> str:
    return "../" * document.count("/") + f"{FOLDER}/{file}"


def link(text: str, address: str, kind: str) -> nodes.reference:
    return nodes.reference(text, text, refuri=address, classes=[kind])


class Assignments(Directive):
    """```{assignments}```: title, first sentence, the notebook and Colab; the page to have read; the points."""

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        group = nodes.tgroup(cols=len(COLUMNS))
        group += [nodes.colspec(colwidth=width) for width in COLUMNS.values()]
        group += nodes.thead("", nodes.row("", *(nodes.entry("", nodes.paragraph(text=name)) for name in COLUMNS)))
        group += nodes.tbody("", *(self.row(env, one) for one in tasks(Path(env.srcdir))))
        if not group[-1].children:
            raise self.error("there is no assignment to list: the repository has no folder assignments/")
        return [nodes.table("", group, classes=["assignments"])]

    def row(self, env: Any, one: Task) -> nodes.row:
        file = f"{one.name}/{one.name}.ipynb"
        links = [link(f"{one.name}.ipynb", address_of(env.docname, file), "handout")]
        if home := repository(Path(env.srcdir)):
            where = f"{home}/blob/{env.config.book_notebook_branch}/{FOLDER}/{file}"
            links += [
                nodes.Text(" · "),
                link("Open in Colab", f"https://colab.research.google.com/github/{where}", "colab"),
            ]
        about = [self.words(f"**{one.title}**"), self.words(one.about), nodes.paragraph("", "", *links)]
        after = [self.words(f"{{doc}}`/{one.after}`")] if one.after else []
        points = f"{one.checked:g}\N{NO-BREAK SPACE}+\N{NO-BREAK SPACE}{one.written:g}"  # narrow, for a phone
        cells = (about, after, [nodes.paragraph(text=points)])
        return nodes.row("", *(nodes.entry("", *cell) for cell in cells))

    def words(self, text: str) -> nodes.paragraph:
        """A paragraph with the markup in it, without a warning for each mark."""
        inside, messages = self.state.inline_text(text, self.lineno)
        return nodes.paragraph("", "", *inside, *messages)


def handout(name, rawtext, text, lineno, inliner, options=None, content=()):
    """{handout}`text <file>`: a file that students get; `wheel` is the package, <name>.ipynb a notebook."""
    env = inliner.document.settings.env
    parts = LINK.fullmatch(text)
    asked = parts["file"] if parts else text
    for file in handed_out(Path(env.srcdir)):
        if (
            file == asked
            or (asked == "wheel" and file.endswith(".whl"))
            or file == f"{asked.removesuffix('.ipynb')}/{asked}"
        ):
            shown = (parts and parts["text"]) or Path(file).name
            node = nodes.reference(rawtext, shown, refuri=address_of(env.docname, file), classes=["handout"])
            return [node], []
    message = inliner.reporter.error(
        f"students get no file {asked!r}; they get assignments.zip and what it holds", line=lineno
    )
    return [inliner.problematic(rawtext, rawtext, message)], [message]


def mend(soup: Any) -> None:
    """Files are saved, not shown; links that read alike are told apart by their names."""
    for file in soup.select("a.handout"):
        file["download"] = ""
    for colab in soup.select("table.assignments a.colab"):
        colab["aria-label"] = f"Open in Colab: {colab.find_parent('tr').find('strong').get_text()}"


def prepare(app: Any) -> None:
    """Before the chapters run, so that nothing that is missing here is found out minutes later."""
    from sphinx.errors import ExtensionError

    try:
        handed_out.cache_clear()
        handed_out(Path(app.srcdir))
    except ValueError as error:
        raise ExtensionError(str(error)) from None


def setup(app: Any) -> None:
    app.add_directive("assignments", Assignments)
    app.add_role("handout", handout)
    app.connect("builder-inited", prepare)
