"""The built site without a browser: links, names, marks, weight, and what must not be in it."""

import functools
import gzip
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import html5lib
import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 600_000  # bytes of a first view: the page without its figures, its styles, scripts and fonts


@functools.cache
def parsed(path: Path) -> Any:  # bs4 types whatever a tag holds as text, a list or None
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def anchors(path: Path) -> set[str]:
    return {tag["id"] for tag in parsed(path).find_all(id=True)}


def test_every_link_has_its_target(site, page):
    here = site / page
    for tag, attribute in (("a", "href"), ("link", "href"), ("script", "src"), ("img", "src")):
        for element in parsed(here).find_all(tag, attrs={attribute: True}):
            address = urlsplit(element[attribute])
            if address.scheme or address.netloc:
                assert tag == "a", f"{element} comes from another host"
                continue
            target = (here.parent / unquote(address.path)).resolve() if address.path else here
            assert target.is_file(), f"{page}: {element[attribute]} leads nowhere"
            if address.fragment and target.suffix == ".html":
                assert unquote(address.fragment) in anchors(target), f"{page}: no {address.fragment} in {target.name}"


def test_html_is_well_formed(site, page):
    """html5lib, which reads as browsers do, finds nothing to mend but what the parser of 2014 did not know."""
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    parser.parse((site / page).read_text(encoding="utf-8"))
    # named twice by one element or nested where it may not be: errors; the rest are HTML's finer points
    assert [error for error in parser.errors if error[1] not in ("unexpected-solidus-in-tag",)] == []


def test_ids_are_unique_and_pictures_have_names(site, page):
    soup = parsed(site / page)
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(ids) == len(set(ids)), sorted({name for name in ids if ids.count(name) > 1})
    names = [image.get("alt", "") for image in soup.find_all("img")]
    names += [figure.get("aria-label", "") for figure in soup.select("svg[role=img]")]
    for name in names:
        assert len(name.split()) >= 3, f"{page}: a figure is called {name!r}"
        assert not re.search(r"\.(svg|png|jpe?g)$|_images/", name), f"{page}: a figure is called by its file, {name!r}"


def test_page_has_one_title_and_no_level_is_skipped(site, page):
    levels = [int(tag.name[1]) for tag in parsed(site / page).select("h1, h2, h3, h4, h5, h6")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels


def test_page_loads_only_what_the_site_holds_and_nothing_blocks(site, page):
    soup = parsed(site / page)
    blocking = [s.get("src", "(inline)") for s in soup.find_all("script") if not s.has_attr("defer")]
    assert [name.rpartition("/")[2] for name in blocking] == ["early.js"]
    assert soup.find("style") is None
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.replace("style-src-attr 'unsafe-inline'", "")
    for sheet in soup.select("link[rel=stylesheet]"):
        css = ((site / page).parent / sheet["href"]).resolve()
        for address in re.findall(r"url\(([^)]+)\)", css.read_text(encoding="utf-8")):
            name = address.strip("\"'")
            assert name.startswith("data:") or (css.parent / name).is_file(), f"{css.name}: {name}"


def test_first_view_is_light(site, page):
    """Page (without figures) and every style, script and font it may load, uncompressed."""
    soup: Any = BeautifulSoup((site / page).read_text(encoding="utf-8"), "html.parser")
    for figure in soup.select("svg[role=img]"):
        figure.decompose()
    # KaTeX's text is long and repeats itself: a page travels compressed, and is weighed so
    total = len(gzip.compress(str(soup).encode(), mtime=0))
    fonts = {"fonts"} | ({"katex/fonts"} if soup.select_one(".katex") else set())
    needed = [tag.get("src") or tag.get("href") for tag in soup.select("script[src], link[rel=stylesheet]")]
    total += sum(((site / page).parent / name).resolve().stat().st_size for name in needed if "searchindex" not in name)
    total += sum(font.stat().st_size for folder in fonts for font in (site / "_static" / folder).glob("*.woff2"))
    assert total <= BUDGET, f"{page}: {total} bytes"


def test_mathematics_is_set_and_none_is_red(site, page):
    text = (site / page).read_text(encoding="utf-8")
    assert "#cc0000" not in text
    assert "katex-error" not in text
    assert not re.search(
        r"(?<!\\)\$\$|\\begin\{align",
        re.sub(r"<annotation.*?</annotation>|<pre.*?</pre>|<code.*?</code>", "", text, flags=re.S),
    )


def test_every_display_equation_is_numbered_and_marked(site, page):
    soup = parsed(site / page)
    displays = soup.select(".katex-display")
    for display in displays:
        box = display.find_parent(class_="equation")
        assert box is not None, f"{page}: {display.get_text()[:60]} is not numbered"
        assert re.fullmatch(r"\([\d.]+\)", box.select_one(".number").get_text())
        assert box.select_one("a.verified")["aria-label"].startswith(
            f"Equation {box.select_one('.number').get_text()[1:-1]} "
        )
    assert len(displays) == len(soup.select(".equation"))


def numbers_of(site: Path) -> dict[str, str]:
    """label's anchor: number, from the pages."""
    return {
        box["id"]: box.select_one(".number").get_text()[1:-1]
        for path in site.rglob("*.html")
        for box in parsed(path).select(".equation")
    }


def test_site_shows_all_equations_that_were_checked(site):
    report = json.loads((site.parents[2] / "build" / "equations.json").read_text(encoding="utf-8"))
    shown = numbers_of(site)
    missing = [label for label in report if f"equation-{re.sub(r'[^a-z0-9]+', '-', label.lower())}" not in shown]
    assert report
    assert missing == []
    listed = [path for path in site.rglob("*.html") if len(parsed(path).select(".verified-table")) > 0]
    assert len(listed) == 1, "one page lists all equations"
    rows = parsed(listed[0]).select(".verified-table tbody tr")
    assert len(rows) == len(report)
    for row in rows:
        label = row.find_all("td")[1].get_text(strip=True)
        assert int(row.find_all("td")[5].get_text()) == report[label]["checks"]


def test_numbers_are_unique(site):
    shown = list(numbers_of(site).values())
    assert len(shown) == len(set(shown))


def test_stylesheet_of_the_mathematics_goes_with_its_script(site):
    """Another version garbles subscripts without a word."""
    katex = pytest.importorskip("sphinxcontrib.katex")
    style = (site / "_static" / "katex" / "katex.css").read_text(encoding="utf-8")
    assert f'content:"{katex.katex_version}"' in style
    assert 'format("woff")' not in style
    assert "truetype" not in style
    assert sorted(set(re.findall(r"fonts/([\w-]+\.woff2)", style))) == sorted(
        p.name for p in (site / "_static/katex/fonts").iterdir()
    )


def notebooks_of(site: Path) -> list[Path]:
    return sorted((site / "notebooks").rglob("*.ipynb"))


def test_each_chapter_with_code_has_a_notebook_that_reads_anywhere(site):
    """As many code cells as the source, one more that sees to the package; no directive or role is left in the text."""
    assert notebooks_of(site), "no notebook is carried by the site"
    for path in notebooks_of(site):
        name = path.relative_to(site / "notebooks").with_suffix("")
        source = (site / "source" / name).with_suffix(".md").read_text(encoding="utf-8")
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        assert len(code) == len(re.findall(r"(?m)^`{3,}\{code-cell\}", source)) + 1
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        outside = re.sub(r"(?ms)^ *```.*?^ *```", "", text)
        assert not re.search(r"(?m)^ *[`:]{3,}\{", text), f"{name}: a directive is left"
        assert not re.search(r"\{[a-z][\w:]*\}`", outside), f"{name}: a role is left"
        assert not re.search(r"(?m)^\([\w:-]+\)=", text), f"{name}: a target is left"


def test_notebooks_number_equations_as_the_site_does(site):
    shown = numbers_of(site)
    compared = 0
    for path in notebooks_of(site):
        text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
        text = re.sub(r"(?m)^> ?", "", text)
        for label, equation in re.findall(r'<a id="([^"]+)"></a>\n\n\$\$\n(.*?)\n\$\$', text, flags=re.S):
            number = re.search(r"\\tag\{([\d.]+)\}$", equation)
            assert number, f"{path.name}: {label} has no number"
            assert shown[f"equation-{re.sub(r'[^a-z0-9]+', '-', label.lower())}"] == number[1], f"{path.name}: {label}"
            compared += 1
    inside = sum(
        len(parsed(site / path.relative_to(site / "notebooks").with_suffix(".html")).select(".equation"))
        for path in notebooks_of(site)
    )
    assert compared == inside > 0


def test_nothing_is_published_by_accident(site):
    """No folder of sources, no cache, no path of the machine that built it, no file of an unexpected kind."""
    allowed = {
        ".html",
        ".js",
        ".css",
        ".woff2",
        ".svg",
        ".png",
        ".txt",
        ".ipynb",
        ".md",
        ".whl",
        ".inv",
        ".zip",
        ".yml",
    }
    root = str(ROOT)
    for path in site.rglob("*"):
        if path.is_dir() or path.name in (".nojekyll", ".buildinfo"):
            continue
        assert path.suffix in allowed, f"{path.relative_to(site)} is of an unexpected kind"
        if path.suffix in (".html", ".js", ".css", ".svg", ".ipynb"):
            assert root not in path.read_text(encoding="utf-8"), f"{path.relative_to(site)} names {root}"
    assert not (site / "_sources").exists()
