"""The mark beside each display equation: which test holds it, and how closely.

Reads build/equations.json, which the tests in tests/equations write, and gives the site three things: a mark
beside each number, a page for each test module ({test}`module::test` leads there), and the tables of
```{verified-equations}```. A display equation without a label, or with a label that no test holds, is a warning, and
warnings stop the build.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup
from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

logger = logging.getLogger(__name__)

TICK = (
    '<svg viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d="m2.5 8.5 3.6 4L13.5 4" fill="none" '
    'stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"></path></svg>'
)


class verified_equations(nodes.General, nodes.Element):
    """Stands for the tables until all equations have their numbers."""


class test_reference(nodes.Inline, nodes.TextElement):
    """Stands for a link to a test until the page's own address is known."""


class VerifiedEquations(SphinxDirective):
    has_content = False

    def run(self):
        return [verified_equations()]


def report_path(app) -> Path:
    return Path(app.srcdir).parent / "build" / "equations.json"


def settle_config(app, config) -> None:
    path = report_path(app)
    if not path.is_file():
        raise ExtensionError("build/equations.json is missing: run `make book`, which runs tests/equations first")
    text = path.read_text(encoding="utf-8")
    app.book_equations = json.loads(text)
    config.book_equations_digest = hashlib.sha256(text.encode()).hexdigest()  # a new report rewrites the pages


def node_id(label: str) -> str:
    return nodes.make_id(f"equation-{label}")


def test_page(entry: dict) -> tuple[str, str]:
    """The page that shows this test, and the anchor on it."""
    module, _, function = entry["test"].partition("::")
    return module.removesuffix(".py"), function.partition("[")[0]


def in_words(residual: float) -> str:
    return "0" if residual == 0 else f"{residual:.0e}".replace("e-0", "e-").replace("e+0", "e+")


def scientific(value: float) -> tuple[str, str]:
    """Digits and exponent as in print: 3e-16 is 3·10 and −16; 0 has no exponent."""
    if value == 0:
        return "0", ""
    exponent = math.floor(math.log10(value))
    digits = round(value / 10.0**exponent)
    if digits == 10:
        digits, exponent = 1, exponent + 1
    return "10" if digits == 1 else f"{digits}·10", str(exponent).replace("-", "−")


def as_node(value: float) -> nodes.inline:
    digits, exponent = scientific(value)
    return nodes.inline("", "", nodes.Text(digits), *([nodes.superscript("", exponent)] if exponent else []))


def as_html(value: float) -> str:
    digits, exponent = scientific(value)
    return f"{digits}<sup>{exponent}</sup>" if exponent else digits


def number_of(app, label: str) -> str:
    document, fallback = app.env.get_domain("math").equations[label]
    number = app.env.toc_fignumbers.get(document, {}).get("displaymath", {}).get(node_id(label))
    return ".".join(map(str, number)) if number else str(fallback)


def refuse_unlabelled(app, doctree) -> None:
    for block in doctree.findall(nodes.math_block):
        if not block.get("label"):
            logger.warning("this display equation has no label; give it `:label:` and a test", location=block)


def refuse_untested(app, env) -> None:
    for label, (document, _) in env.get_domain("math").equations.items():
        if label not in app.book_equations:
            logger.warning(
                "equation %r has no test in build/equations.json; add @equation(%r) to a test in tests/equations",
                label,
                label,
                location=document,
            )


def mark(app, pagename: str, soup: BeautifulSoup, pathto) -> None:
    """Number, link and mark beside each display equation, which scrolls within its own box."""
    labels = {node_id(label): label for label in app.env.get_domain("math").equations}
    for block in soup.select("div.math"):
        label = labels.get(block.get("id", ""))
        display = block.select_one(".katex-display")
        if label is None or display is None:
            continue  # unlabelled: the build has already warned
        number = number_of(app, label)
        name = f"Equation {number}"
        block.attrs = {"class": "equation", "id": block["id"]}
        body = soup.new_tag("div", attrs={"class": "equation-body", "role": "group", "aria-label": name})
        body.append(display.extract())
        aside = [f'<a class="number" href="#{block["id"]}" aria-label="Link to {name.lower()}">({number})</a>']
        entry = app.book_equations.get(label)
        if entry:
            page, anchor = test_page(entry)
            says = f"{name} is checked by {anchor}, largest residual {in_words(entry['residual'])}"
            link = f"{pathto(page)}#{anchor}"
            said = escape(says)
            aside.append(f'<a class="verified" href="{escape(link)}" aria-label="{said}" title="{said}">{TICK}</a>')
        block.clear()
        block.append(body)
        block.append(BeautifulSoup(f'<div class="equation-number">{"".join(aside)}</div>', "html.parser"))


def link_comments(app, pagename: str, soup: BeautifulSoup) -> None:
    """In the comments of code, {eq}`label` becomes a link with the equation's number."""
    equations = app.env.get_domain("math").equations
    for comment in soup.select(".highlight .c1"):
        pieces = re.split(r"\{eq\}`([^`]+)`", comment.get_text())
        if len(pieces) == 1:
            continue
        comment.clear()
        for place, piece in enumerate(pieces):
            if place % 2 == 0:
                comment.append(piece)
            elif piece not in equations:
                logger.warning(
                    "a comment in the code refers to equation %r, which is not there", piece, location=pagename
                )
            else:
                uri = f"{app.builder.get_relative_uri(pagename, equations[piece][0])}#{node_id(piece)}"
                link = soup.new_tag("a", attrs={"href": uri})
                link.string = f"({number_of(app, piece)})"
                comment.append(link)


def ordered(app) -> list[tuple[str, list[str]]]:
    """Documents in the order of the contents, each with its labels in the order of their numbers."""
    found: dict[str, list[str]] = {}
    for label, (document, _) in app.env.get_domain("math").equations.items():
        found.setdefault(document, []).append(label)
    order = {document: place for place, document in enumerate(reading_order(app.env))}

    def rank(label: str) -> list[int]:
        return [int(part) if part.isdigit() else 0 for part in number_of(app, label).split(".")]

    return [
        (document, sorted(found[document], key=rank)) for document in sorted(found, key=lambda d: order.get(d, 10**6))
    ]


def reading_order(env) -> list[str]:
    seen, stack = [], [env.config.root_doc]
    while stack:
        document = stack.pop()
        if document not in seen:
            seen.append(document)
            stack.extend(reversed(env.toctree_includes.get(document, [])))
    return seen


def build_tables(app, doctree, docname) -> None:
    for place in list(doctree.findall(verified_equations)):
        place.replace_self([section_for(app, docname, document, labels) for document, labels in ordered(app)])


def section_for(app, docname: str, document: str, labels: list[str]) -> nodes.section:
    relative = app.builder.get_relative_uri(docname, document)
    number = app.env.toc_secnumbers.get(document, {}).get("")
    title = " ".join([*([".".join(map(str, number))] if number else []), app.env.titles[document].astext()])
    section = nodes.section(ids=[nodes.make_id(f"verified-{document}")])
    section += nodes.title("", title)
    rows = []
    for label in labels:
        entry = app.book_equations.get(label)
        if entry is None:
            continue
        page, anchor = test_page(entry)
        uri = f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
        rows.append(
            [
                reference(f"({number_of(app, label)})", f"{relative}#{node_id(label)}"),
                nodes.literal("", label),
                reference(anchor, uri, code=True),
                as_node(entry["residual"]),
                as_node(entry["tolerance"]),
                nodes.Text(str(entry["checks"])),
            ]
        )
    section += table(["Equation", "Label", "Test", "Residual", "Tolerance", "Checks"], rows)
    return section


def reference(text: str, uri: str, code: bool = False) -> nodes.reference:
    inner = nodes.literal("", text) if code else nodes.Text(text)
    return nodes.reference("", "", inner, internal=True, refuri=uri)


def table(head: list[str], rows: list[list[nodes.Node]]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group.extend(nodes.colspec(colwidth=1) for _ in head)
    group += nodes.thead("", row([nodes.Text(text) for text in head]))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group, classes=["verified-table"])


def row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def tests_in(path: Path) -> dict[str, tuple[int, int]]:
    """Each test of a module, with its first line (of its decorators) and its last."""
    found = {}
    for part in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(part, ast.FunctionDef) and part.name.startswith("test_"):
            first = min([part.lineno, *(decorator.lineno for decorator in part.decorator_list)])
            found[part.name] = (first, part.end_lineno or first)
    return found


def source_pages(app):
    """One page for each module of tests/equations, with an anchor for each test."""
    root = Path(app.srcdir).parent
    held: dict[str, dict[str, list[str]]] = {}
    for path in sorted((root / "tests" / "equations").glob("test_*.py")):
        held[path.relative_to(root).as_posix()] = {}
    for label, entry in app.book_equations.items():
        module = entry["test"].partition("::")[0]
        if module not in held:
            raise ExtensionError(f"{module} is named by build/equations.json but is not there; run `make book`")
        held[module].setdefault(test_page(entry)[1], []).append(label)
    for module, tests in held.items():
        page, path = module.removesuffix(".py"), root / module
        body = [
            f"<section><h1>{escape(path.name)}</h1>",
            "<p>The source as it ran when this book was built. The harness runs each test of an equation again with "
            "one side of every assertion moved by a millionth, and demands that it then fails.</p>",
            held_by(app, page, tests) if tests else "",
            listing(path.read_text(encoding="utf-8"), tests_in(path)),
            "</section>",
        ]
        yield page, {"title": module, "body": "\n".join(body)}, "page.html"


def held_by(app, page: str, tests: dict[str, list[str]]) -> str:
    rows = []
    for test, labels in tests.items():
        for label in sorted(labels):
            if label not in app.env.get_domain("math").equations:
                continue
            document = app.env.get_domain("math").equations[label][0]
            uri = f"{app.builder.get_relative_uri(page, document)}#{node_id(label)}"
            entry = app.book_equations[label]
            rows.append(
                f'<tr><td><a href="{escape(uri)}">({number_of(app, label)})</a></td><td><a href="#{escape(test)}">'
                f"<code>{escape(test)}</code></a></td><td>{as_html(entry['residual'])}</td></tr>"
            )
    head = "".join(f"<th>{name}</th>" for name in ("Equation", "Test", "Residual"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def listing(code: str, tests: dict[str, tuple[int, int]]) -> str:
    """Highlighted source; the lines of a test stand in one element that carries its name."""
    lines = highlight(code, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).rstrip("\n").split("\n")
    starts = {first: name for name, (first, _) in tests.items()}
    ends = {last for _, last in tests.values()}
    written = []
    for number, line in enumerate(lines, start=1):
        if number in starts:
            written.append(f'<span class="test" id="{escape(starts[number])}">')
        written.append(f'<span class="line"><span class="number" aria-hidden="true">{number}</span>{line}\n</span>')
        if number in ends:
            written.append("</span>")
    return f'<div class="source wide"><div class="highlight"><pre>{"".join(written)}</pre></div></div>'


class TestRole(SphinxRole):
    """{test}`test_elbo::test_gap` shows a test's name and leads to its source."""

    def run(self):
        module, _, name = self.text.rpartition("::")
        path = Path(self.env.srcdir).parent / "tests" / "equations" / f"{module}.py"
        node = test_reference("", "", nodes.literal("", name), page=f"tests/equations/{module}", test=name)
        if not path.is_file() or name not in tests_in(path):
            logger.warning(
                "there is no test %r in tests/equations; write {test}`module::test`",
                self.text,
                location=self.get_location(),
            )
            return [nodes.literal("", name)], []
        self.env.note_dependency(str(path))
        return [node], []


def resolve_tests(app, doctree, docname) -> None:
    for node in list(doctree.findall(test_reference)):
        uri = f"{app.builder.get_relative_uri(docname, node['page'])}#{node['test']}"
        node.replace_self(nodes.reference("", "", *node.children, internal=True, refuri=uri))


def rewrite_tables(app, env) -> list[str]:
    """The page of all equations is written anew whenever any page is."""
    return [name for name in env.found_docs if any(env.get_doctree(name).findall(verified_equations))]


def setup(app) -> None:
    app.add_config_value("book_equations_digest", "", "html")
    app.add_node(verified_equations)
    app.add_node(test_reference)
    app.add_role("test", TestRole())
    app.add_directive("verified-equations", VerifiedEquations)
    app.connect("config-inited", settle_config)
    app.connect("doctree-read", refuse_unlabelled)
    app.connect("env-check-consistency", refuse_untested)
    app.connect("env-updated", rewrite_tables)
    app.connect("doctree-resolved", build_tables)
    app.connect("doctree-resolved", resolve_tests)
    app.connect("html-collect-pages", source_pages)
