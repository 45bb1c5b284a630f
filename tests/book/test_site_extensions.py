"""The site's own extensions: what each makes of a small input, and what stops a build."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import coursework
import docstrings
import figures
import nbformat
import notebooks
import plainmarkdown
import pytest
from bs4 import BeautifulSoup
from docutils.core import publish_string
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]
HEAD = """---
jupytext:
  text_representation: {extension: .md, format_name: myst, format_version: 0.13}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

"""
TESTS = """from harness import assert_close, equation


@equation("sum-rule")
def test_sums():
    assert_close(1 + 1, 2)


def test_other():
    assert 2 < 3
"""
REPORT = {
    "sum-rule": {
        "test": "tests/equations/test_small.py::test_sums",
        "line": 4,
        "end_line": 6,
        "residual": 2.3e-16,
        "tolerance": 1e-12,
        "checks": 1,
    }
}
EQUATION = "```{math}\n:label: sum-rule\n1+1=2.\n```\n"
DRAWING = """```{code-cell} ipython3
---
mystnb: {figure: {name: "fig:line", caption: "A line."}, IMAGE}
---
import matplotlib.pyplot as plt
%config InlineBackend.figure_formats = ["svg"]
plt.plot([0, 1], color="#0072b2");
```
"""


def read_html(text: str) -> Any:  # bs4 types whatever a tag holds as text, a list or None
    return BeautifulSoup(text, "html.parser")


@pytest.fixture
def small(tmp_path):
    """small(chapter) builds a book of one chapter and returns (exit status, output, the site)."""
    shared = {"node_modules": ROOT / "node_modules"}
    shared |= {f"book/{name}": ROOT / "book" / name for name in ("_extensions", "_theme", "_config.yml")}
    (tmp_path / "book").mkdir()
    for name, source in shared.items():
        os.symlink(source, tmp_path / name, target_is_directory=source.is_dir())
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "equations.json").write_text(json.dumps(REPORT), encoding="utf-8")
    (tmp_path / "tests" / "equations").mkdir(parents=True)
    (tmp_path / "tests" / "equations" / "test_small.py").write_text(TESTS, encoding="utf-8")

    def build(chapter: str, **environment: str):
        book = tmp_path / "book"
        (book / "_toc.yml").write_text(
            "format: jb-book\nroot: intro\nparts:\n- caption: One\n  numbered: true\n  chapters:\n  - file: chapter\n",
            encoding="utf-8",
        )
        (book / "intro.md").write_text("# A small book\n\nWelcome.\n", encoding="utf-8")
        (book / "references.bib").write_text(
            "@book{b, author={A, B}, title={C}, publisher={D}, year={2000}}\n", encoding="utf-8"
        )
        (book / "chapter.md").write_text(chapter, encoding="utf-8")
        code = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, "build", str(book), "-W", "-n", "--keep-going"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "LECTURECODE_REPOSITORY": "", **environment},
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr, book / "_build" / "html"

    build.root = tmp_path
    return build


def test_small_book_builds_with_all_that_a_chapter_may_hold(small):
    """A number with a mark, a link in a comment, a note in the margin, a folded solution, a theorem, a test by name."""
    chapter = HEAD + (
        "# Sums\n\nSee {eq}`sum-rule` and {test}`test_small::test_other`.\n\n```{margin}\nAside.\n```\n\n"
        + EQUATION
        + "\n"
        "```{code-cell} ipython3\nassert 1 + 1 == 2  # {eq}`sum-rule`\nprint(2)\n```\n\n"
        "```{exercise} Add\n:label: ex:add\nAdd one.\n```\n\n```{solution} ex:add\n:class: dropdown\nTwo.\n```\n\n"
        "```{prf:theorem} Sums\n:label: thm:sums\nThey exist.\n```\n\nBy {prf:ref}`thm:sums`, {cite:t}`b`.\n\n"
        "```{bibliography}\n```\n"
    )
    status, output, site = small(chapter)
    assert status == 0, output
    soup = read_html((site / "chapter.html").read_text(encoding="utf-8"))
    mark = soup.select_one("#equation-sum-rule a.verified")
    assert mark["href"] == "tests/equations/test_small.html#test_sums"
    assert mark["aria-label"] == "Equation 1.1 is checked by test_sums, largest residual 2e-16"
    assert soup.select_one(".highlight .c1 a")["href"] == "#equation-sum-rule"
    assert soup.select_one(".highlight .c1").get_text() == "# (1.1)"
    assert soup.select_one("div.margin[role=note]").get_text(strip=True) == "Aside."
    assert soup.select_one("details.box summary").get_text(strip=True).startswith("Solution to Exercise 1.1")
    assert any(link["href"] == "tests/equations/test_small.html#test_other" for link in soup.select("a"))
    listing = read_html((site / "tests/equations/test_small.html").read_text(encoding="utf-8"))
    assert listing.select_one("#test_sums").get_text().startswith('4@equation("sum-rule")\n')
    assert "assert 2 < 3" in listing.select_one("#test_other").get_text()
    assert not soup.select(".bar a[href*=colab]")
    assert not (site / "wheel").exists()


def test_repository_gives_colab_links_and_a_cell_that_installs(small):
    (small.root / "build" / "wheel").mkdir()
    (small.root / "build" / "wheel" / "lecturecode-0.1.0-py3-none-any.whl").write_bytes(b"a wheel")
    chapter = HEAD + "# Sums\n\n" + EQUATION + "\n```{code-cell} ipython3\nprint(2)\n```\n"
    status, output, site = small(chapter, LECTURECODE_REPOSITORY="Owner/name")
    assert status == 0, output
    soup = read_html((site / "chapter.html").read_text(encoding="utf-8"))
    links = {link.get_text(): link["href"] for link in soup.select(".bar a")}
    assert links["Open in Colab"] == "https://colab.research.google.com/github/Owner/name/blob/notebooks/chapter.ipynb"
    assert links["Source"] == "https://github.com/Owner/name/blob/main/book/chapter.md"
    first = nbformat.read(site / "notebooks" / "chapter.ipynb", as_version=4).cells[0].source
    assert "https://owner.github.io/name/wheel/lecturecode-0.1.0-py3-none-any.whl" in first
    assert (site / "wheel" / "lecturecode-0.1.0-py3-none-any.whl").read_bytes() == b"a wheel"


WHY = {"grade": True, "grade_id": "why", "locked": False, "points": 3, "schema_version": 3}
TASK = (
    HEAD
    + """# Adding: one and one

What is the sum of $a$ and $b$? Ask *Sums*. Then add.

**Builds on** “All” on the page *Sums*, and on “None” on the page *Lost*.

```{code-cell} ipython3
---
nbgrader: {grade: false, grade_id: add, locked: false, schema_version: 3, solution: true, task: false}
---
def add(a, b):
    ### BEGIN SOLUTION
    return a + b
    ### END SOLUTION
```

```{code-cell} ipython3
---
nbgrader: {grade: true, grade_id: add-check, locked: true, points: 2.5, schema_version: 3, solution: false, task: false}
---
assert add(1, 1) == 2
```

+++ {"nbgrader": WHY}

### BEGIN SOLUTION
Rubric: 3 points.
### END SOLUTION
"""
).replace("WHY", json.dumps({**WHY, "solution": True, "task": False}))


def hand_out(root: Path) -> None:
    """Two assignments and a wheel in a small repository; the one that builds on no page comes last."""
    (root / "build" / "wheel").mkdir()
    (root / "build" / "wheel" / "lecturecode-0.1.0-py3-none-any.whl").write_bytes(b"a wheel")
    for name, text in {
        "adding": TASK,
        "a-lone-one": TASK.replace("*Sums*,", "*Nowhere*,").replace("one and", "two and"),
    }.items():
        (root / "assignments" / name).mkdir(parents=True)
        (root / "assignments" / name / f"{name}.md").write_text(text, encoding="utf-8")


def test_assignments_are_listed_and_handed_out(small):
    """In the order of the pages that they need, with points, files that are saved, Colab, and no solution."""
    hand_out(small.root)
    listing = "```{assignments}\n```\n\nTake {handout}`all of them <assignments.zip>`, {handout}`wheel`, "
    listing += "{handout}`adding.ipynb`.\n"
    status, output, site = small("# Sums\n\n" + listing, LECTURECODE_REPOSITORY="Owner/name")
    assert status == 0, output
    soup = read_html((site / "chapter.html").read_text(encoding="utf-8"))
    first, second = soup.select("table.assignments tbody tr")
    said = [" ".join(cell.get_text(" ").split()) for cell in first.select("td")]
    assert said[1:] == ["Sums", "2.5 + 3"]
    assert said[0].endswith("? adding.ipynb · Open in Colab")
    assert first.select_one("strong").get_text() == "Adding: one and one"
    assert first.select("td")[0].select("p")[1].select_one(".katex")
    assert "Ask" not in first.get_text()
    assert second.select_one("strong").get_text() == "Adding: two and one"
    assert second.select("td")[1].get_text(strip=True) == ""
    colab = first.select_one("a.colab")
    assert colab["href"].endswith("/github/Owner/name/blob/notebooks/assignments/adding/adding.ipynb")
    assert colab["aria-label"] == "Open in Colab: Adding: one and one"
    links = {link.get_text(): link for link in soup.select("a.handout")}
    assert {text: link["href"] for text, link in links.items()} == {
        "adding.ipynb": "assignments/adding/adding.ipynb",
        "a-lone-one.ipynb": "assignments/a-lone-one/a-lone-one.ipynb",
        "all of them": "assignments/assignments.zip",
        "lecturecode-0.1.0-py3-none-any.whl": "assignments/lecturecode-0.1.0-py3-none-any.whl",
    }
    assert all(link.has_attr("download") and (site / link["href"]).is_file() for link in links.values())
    cells = nbformat.read(site / links["adding.ipynb"]["href"], as_version=4).cells
    assert "https://owner.github.io/name/wheel/lecturecode-0.1.0-py3-none-any.whl" in cells[0].source
    assert "YOUR CODE HERE" in cells[2].source
    for path in site.rglob("*"):
        if path.is_file():
            assert b"return a + b" not in path.read_bytes()
            assert b"3 points" not in path.read_bytes()


def test_assignments_go_with_the_notebooks_of_the_book(tmp_path, monkeypatch):
    """`make notebooks`, for Colab; without what such a notebook needs, one line says what."""
    monkeypatch.delenv("LECTURECODE_REPOSITORY", raising=False)
    (tmp_path / "build").mkdir()
    hand_out(tmp_path)
    book = tmp_path / "book"
    book.mkdir()
    (book / "_config.yml").write_text("sphinx: {config: {book_repository: ''}}\n", encoding="utf-8")
    (book / "_toc.yml").write_text("format: jb-book\nroot: intro\n", encoding="utf-8")
    (book / "intro.md").write_text("# Welcome\n", encoding="utf-8")
    made = notebooks.main(tmp_path / "out", book)
    assert {path.relative_to(tmp_path / "out").as_posix() for path in made} == {
        "assignments/adding/adding.ipynb",
        "assignments/a-lone-one/a-lone-one.ipynb",
    }
    coursework.handed_out.cache_clear()
    with monkeypatch.context() as without:
        without.setattr(coursework.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"nbgrader, .* is missing: pip install"):
            notebooks.main(tmp_path / "out", book)
    shutil.rmtree(tmp_path / "build" / "wheel")
    with pytest.raises(ExtensionError, match="no wheel to hand out with the assignments; run `make book`"):
        coursework.prepare(SimpleNamespace(srcdir=book))
    shutil.rmtree(tmp_path / "assignments")
    assert notebooks.main(tmp_path / "out", book) == []


REPORTED = {
    "a list of assignments where there are none": ("```{assignments}\n```\n", "there is no assignment to list"),
    "a file that students do not get": ("{handout}`this <gone.zip>`\n", "students get no file 'gone.zip'"),
    "mathematics that KaTeX cannot read": ("Take $\\frac{1}$.\n", "KaTeX parse error: "),
    "equation without a label": ("```{math}\n1+1=2.\n```\n", "this display equation has no label"),
    "equation without a test": ("```{math}\n:label: other\n1+1=2.\n```\n", "equation 'other' has no test"),
    "test that is not there": ("See {test}`test_small::test_gone`.\n", "there is no test 'test_small::test_gone'"),
    "comment on an equation that is not there": ("```python\nx = 1  # {eq}`lost`\n```\n", "refers to equation 'lost'"),
    "reference to nothing": ("See {eq}`gone`.\n", "equation not found: gone"),
    "figure without words": (DRAWING.replace("IMAGE", "image: {}"), "a figure's alt text is '_images/"),
    "figure named by its file": (
        DRAWING.replace("IMAGE", 'image: {alt: "figures/line.svg"}').replace("fig:line", "fig:two").replace("1]", "2]"),
        "a figure's alt text is 'figures/line.svg'",
    ),
    "warning printed by a cell": (
        "```{code-cell} ipython3\nimport warnings\nwarnings.warn('careful')\n```\n",
        "stderr was found in the cell outputs",
    ),
}


def test_build_reports_every_fault_of_a_chapter(small):
    """Each is a warning of its own, and warnings stop the build."""
    status, output, _ = small(HEAD + "# Sums\n\n" + EQUATION + "\n" + "\n".join(text for text, _ in REPORTED.values()))
    assert status != 0
    output = re.sub(r"\x1b\[[0-9;]*m", "", output)
    complaints = [line for line in output.splitlines() if re.search(r"WARNING|ERROR", line)]
    for fault, (_, complaint) in REPORTED.items():
        assert any(complaint in line for line in complaints), f"{fault}: not in {complaints}"


def test_build_stops_at_a_cell_that_fails(small):
    status, output, _ = small(HEAD + "# Sums\n\n```{code-cell} ipython3\n1 / 0\n```\n")
    assert status != 0
    assert "ZeroDivisionError" in output


def test_build_stops_without_the_report_of_the_equations(small):
    (small.root / "build" / "equations.json").unlink()
    status, output, _ = small(HEAD + "# Sums\n\n" + EQUATION)
    assert status != 0
    assert "build/equations.json is missing: run `make book`" in output


def test_build_stops_at_another_version_of_katex(small):
    modules = small.root / "node_modules"
    modules.unlink()
    for source in (ROOT / "node_modules").iterdir():
        (modules / source.name).parent.mkdir(exist_ok=True)
        if source.name == "katex":
            shutil.copytree(source, modules / "katex")
        else:
            os.symlink(source, modules / source.name)
    manifest = modules / "katex" / "package.json"
    manifest.write_text(
        manifest.read_text(encoding="utf-8").replace('"version": "0.16.22"', '"version": "0.16.21"'), encoding="utf-8"
    )
    status, output, _ = small(HEAD + "# Sums\n\n" + EQUATION)
    assert status != 0
    assert "node_modules/katex is 0.16.21" in output


def test_notebook_header_that_jupytext_cannot_read_is_refused(tmp_path):
    """Without `extension: .md` a notebook would be read as having no cells, silently."""
    (tmp_path / "_config.yml").write_text("sphinx: {config: {book_repository: ''}}\n", encoding="utf-8")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: intro\n", encoding="utf-8")
    (tmp_path / "intro.md").write_text(
        "---\ntitle: x\n---\n\n# Title\n\n    ```{code-cell} ipython3\n    1\n    ```\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match="no code cells"):
        notebooks.main(tmp_path / "out", tmp_path)


# ----------------------------------------------------------------------------------------------- small parts

SVG = """<?xml version="1.0"?><!DOCTYPE svg><svg xmlns:xlink="x" width="72pt" height="36pt" viewBox="0 0 72 36">
<metadata>date</metadata><defs><style type="text/css">*{stroke-linejoin: round}</style></defs>
<g id="patch_1">
 <path d="M 0 0" style="fill: #ffffff"/>
</g><clipPath id="p1"><rect/></clipPath><path id="m" style="stroke: #0072B2; fill: #123456"/>
<use xlink:href="#m" clip-path="url(#p1)" style="fill: #ffffff"/></svg>"""


def test_figure_is_adapted_to_the_page():
    drawn = figures.adapt(SVG, "f7-", 'A "line" & more')
    soup = read_html(drawn)
    assert soup.svg["aria-label"] == 'A "line" & more'
    assert (soup.svg["width"], soup.svg["height"], soup.svg["viewbox"]) == ("96", "48", "0 0 72 36")
    assert {tag["id"] for tag in soup.find_all(id=True)} == {"f7-p1", "f7-m"}
    assert soup.find("use")["href"] == "#f7-m"
    assert soup.find("use")["clip-path"] == "url(#f7-p1)"
    assert soup.find(id="f7-m")["style"] == "stroke: var(--series-0); fill: #123456"
    assert "var(--figure-paper)" in soup.find("use")["style"]
    for gone in ("<style", "metadata", "DOCTYPE", "xlink", "patch_1"):
        assert gone not in drawn


def test_palette_of_the_figures_is_the_plots():
    from lecturecode import plot

    source = Path(plot.__file__).read_text(encoding="utf-8").lower()
    mapped = {colour for colour in figures.PALETTE if colour not in ("#000000",)}
    assert {colour for colour in mapped if colour in source} == mapped


def test_every_colour_of_a_figure_has_a_value_in_light_dark_and_print():
    style = (ROOT / "book/_theme/lecture/static/book.css").read_text(encoding="utf-8")
    for name in set(figures.PALETTE.values()):
        variable = f"--series-{name}:" if name.isdigit() else f"--figure-{name}:"
        assert style.count(variable) >= (1 if name == "paper" else 4), variable


@pytest.mark.parametrize(
    ("alt", "bad"),
    [
        ("Four curves fall.", False),
        ("", True),
        ("../_images/x.svg", True),
        ("plot.png", True),
        ("loss/step rises", False),
    ],
)
def test_alt_text_that_is_a_path_is_known(alt, bad):
    assert figures.looks_like_a_path(alt) is bad


def test_docstring_reads_as_it_is_written():
    """Bars, stars and underscores of mathematics are no markup; Raises and Source are definitions."""
    text = (
        "q(x_r | x_t, x_0): mean *m* and `code`, a|b|c_.\n\nRaises: ValueError where r ≥ t. Source: Ho (2020), eq. 4."
    )
    lines = docstrings.rewrite(text.split("\n"))
    html = publish_string(
        "\n".join(lines), writer_name="html5", settings_overrides={"report_level": 1, "halt_level": 1}
    ).decode()
    soup = read_html(html).body
    assert soup.p.get_text() == "q(x_r | x_t, x_0): mean *m* and code, a|b|c_."
    assert [dt.get_text(strip=True) for dt in soup.select("dt")] == ["Raises", "Source"]
    assert [dd.get_text(strip=True) for dd in soup.select("dd")] == ["ValueError where r ≥ t.", "Ho (2020), eq. 4."]


def test_docstring_keeps_what_is_set_apart():
    lines = docstrings.rewrite(["The sum", "", "    H(p) = −Σ p log p", "    *exactly*", "", "- one_", "- two"])
    html = publish_string(
        "\n".join(lines), writer_name="html5", settings_overrides={"report_level": 1, "halt_level": 1}
    ).decode()
    soup = read_html(html).body
    assert soup.pre.get_text() == "H(p) = −Σ p log p\n*exactly*"
    assert [item.get_text(strip=True) for item in soup.select("li")] == ["one_", "two"]


LIBRARY = plainmarkdown.Library(
    numbers={"gap": "2.1", "ex:a": "Exercise 2.1", "fig:b": "Figure 2.1"},
    titles={"sec:x": "The gap", "/vae/elbo": "The bound"},
    works={"ho2020": ("Ho et al.", "2020")},
)


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ("```{math}\n:label: gap\na=b.\n```", '<a id="gap"></a>\n\n$$\na=b. \\tag{2.1}\n$$'),
        ("By {eq}`gap`, {numref}`fig:b`, {ref}`sec:x`.", "By (2.1), Figure 2.1, *The gap*."),
        ("{ref}`this <sec:x>`, {doc}`elbo`, {doc}`../vae/elbo`", "*this*, *The bound*, *The bound*"),
        ("{cite:t}`ho2020` and {cite:p}`ho2020`", "Ho et al. (2020) and (Ho et al., 2020)"),
        (":::{admonition} The trap\n:class: warning\nForget $N$.\n:::", "> **The trap**\n>\n> Forget $N$."),
        ("```{note}\nText.\n```", "> **Note**\n>\n> Text."),
        ("```{margin}\nAside.\n```", "> **In the margin**\n>\n> Aside."),
        ("```{exercise} Add\n:label: ex:a\nDo.\n```", "> **Exercise 2.1 (Add)**\n>\n> Do."),
        (
            "````{solution} ex:a\n:class: dropdown\n```python\n1\n```\n````",
            "<details>\n<summary>Solution to Exercise 2.1</summary>\n\n```python\n1\n```\n\n</details>",
        ),
        ("(sec:x)=\n## The gap", '<a id="sec:x"></a>\n## The gap'),
        ("```python\nx = '{eq}`gap`'\n```", "```python\nx = '{eq}`gap`'\n```"),
        ("```{bibliography}\n```", ""),
        (
            "```{list-table} T\n:header-rows: 1\n\n* - a\n  - $p\\,\\|\\,q$\n* - 1\n  - $x|y$\n```",
            "T\n\n| a | $p\\,\\Vert \\,q$ |\n|---|---|\n| 1 | $x\\vert y$ |",
        ),
    ],
)
def test_myst_becomes_plain_markdown(myst, markdown):
    assert plainmarkdown.plain(myst, "vae/page", LIBRARY) == markdown


def test_notebooks_of_the_book_are_made_without_sphinx(tmp_path):
    """`make notebooks` in a process of its own: the same files twice, and Sphinx is not imported."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import notebooks; made = notebooks.main(sys.argv[2]);"
        "assert 'sphinx' not in sys.modules; print(len(made))"
    )
    for folder in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(ROOT / "book" / "_extensions"), str(tmp_path / folder)],
            capture_output=True,
            text=True,
            env={**os.environ, "LECTURECODE_REPOSITORY": ""},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) >= 3
    for path in sorted((tmp_path / "first").rglob("*.ipynb")):
        assert path.read_bytes() == (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes()
        assert not re.search(r"\{eq\}`", path.read_text(encoding="utf-8"))
