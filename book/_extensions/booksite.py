"""The book's site: its theme, its assets, and what is done to each page after Sphinx has written its body.

One Sphinx extension, `booksite`, that sets up the others in this folder. Everything a page needs lies in the
site itself; what is missing stops the build with a message that says how to get it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import ClassVar

import coursework
import docstrings
import equations
import figures
import mathematics
import notebooks
from bs4 import BeautifulSoup
from docutils.parsers.rst import directives
from docutils.parsers.rst.directives.body import Sidebar
from markup import mend_body, mend_navigation
from sphinx.errors import ExtensionError

# Name in the site: file under node_modules. The versions are those of package.json.
SERIF = "@fontsource/source-serif-4/files/source-serif-4"
SANS = "@fontsource-variable/source-sans-3/files/source-sans-3"
MONO = "@fontsource-variable/source-code-pro/files/source-code-pro"
FONTS = {
    "text.woff2": f"{SERIF}-latin-400-normal.woff2",
    "text-italic.woff2": f"{SERIF}-latin-400-italic.woff2",
    "text-600.woff2": f"{SERIF}-latin-600-normal.woff2",
    "text-greek.woff2": f"{SERIF}-greek-400-normal.woff2",
    "ui.woff2": f"{SANS}-latin-wght-normal.woff2",
    "code.woff2": f"{MONO}-latin-wght-normal.woff2",
    "code-greek.woff2": f"{MONO}-greek-wght-normal.woff2",
}
FONT_LICENCES = {
    "@fontsource/source-serif-4": "text",
    "@fontsource-variable/source-sans-3": "ui",
    "@fontsource-variable/source-code-pro": "code",
}
# All that pages load from _static; Sphinx and extensions put more there, which is deleted at the end.
STATIC = {
    "book.css",
    "book.js",
    "early.js",
    "favicon.svg",
    "documentation_options.js",
    "doctools.js",
    "sphinx_highlight.js",
    "searchtools.js",
    "language_data.js",
    "fonts",
    "katex",
}

# Faces that a page asks for at once, and what on it needs them.
EARLY = {"italic": "p em, blockquote p", "math": ".katex", "letters": ".katex .mathnormal"}

REDIRECT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="0; url={root}">
<title>{title}</title>
</head>
<body>
<main><h1>{title}</h1><p><a href="{root}">To the book</a></p></main>
</body>
</html>
"""


class Margin(Sidebar):
    """```{margin}``` with an optional title: a note beside the text."""

    required_arguments = 0
    optional_arguments = 1
    option_spec: ClassVar = {"class": directives.class_option, "name": directives.unchanged}

    def run(self):
        titled = bool(self.arguments)
        if not titled:
            self.arguments = [""]
        nodes = super().run()
        nodes[0]["classes"].append("margin")
        if not titled:
            nodes[0].pop(0)
        return nodes


def root_of(app) -> Path:
    """The repository's root: the folder that holds book/."""
    return Path(app.srcdir).parent


def settle_config(app, config) -> None:
    config.book_repository = os.environ.get("LECTURECODE_REPOSITORY", config.book_repository or "").strip("/ ")
    if config.book_repository and config.book_repository.count("/") != 1:
        raise ExtensionError(
            f"book_repository is {config.book_repository!r}; write it as owner/name, or leave it empty"
        )
    missing = [name for name in FONTS.values() if not (root_of(app) / "node_modules" / name).is_file()]
    if missing:
        raise ExtensionError(f"node_modules lacks {missing[0]}; run `make book`, which installs package-lock.json")


def in_view(soup: BeautifulSoup, selector: str) -> bool:
    return any(element.find_parent("details") is None for element in soup.select(selector))


def page_context(app, pagename, templatename, context, doctree) -> None:
    if "toctree" not in context:
        return
    chapters = BeautifulSoup(
        context["toctree"](collapse=True, includehidden=True, titles_only=True) or "", "html.parser"
    )
    sections = BeautifulSoup(context.get("toc") or "", "html.parser")
    context["book_nav"], part = mend_navigation(chapters, sections)
    soup = BeautifulSoup(context.get("body") or "", "html.parser")
    figures.inline(app, pagename, soup)
    equations.link_comments(app, pagename, soup)
    mend_body(soup)
    coursework.mend(soup)
    equations.mark(app, pagename, soup, context["pathto"])
    context["body"] = str(soup)
    context["book_has_math"] = bool(soup.select_one(".katex"))
    context["book_needs"] = " ".join(name for name, where in EARLY.items() if in_view(soup, where))
    crumbs = []
    if pagename != app.config.root_doc:
        crumbs = [
            {"title": part or app.config.html_title, "link": "" if part else context["pathto"](app.config.root_doc)}
        ]
    context["book_crumbs"] = crumbs
    context["book_links"] = notebooks.links(app, pagename, context["pathto"])
    context["book_home"] = f"https://github.com/{app.config.book_repository}" if app.config.book_repository else ""
    first = soup.select_one("section > p")
    context["book_description"] = (
        " ".join(first.get_text(" ").split())[:160] if first and not first.select_one(".katex") else ""
    )


def finish(app, error) -> None:
    if error or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    for entry in static.iterdir():
        if entry.name not in STATIC:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    modules = root_of(app) / "node_modules"
    (static / "fonts").mkdir(exist_ok=True)
    for name, source in FONTS.items():
        shutil.copyfile(modules / source, static / "fonts" / name)
    for package, name in FONT_LICENCES.items():
        shutil.copyfile(modules / package / "LICENSE", static / "fonts" / f"{name}-LICENSE.txt")
    mathematics.copy_assets(modules, static / "katex")
    figures.drop_copies(app)
    notebooks.publish(app)
    coursework.write(Path(app.outdir), Path(app.srcdir))
    (Path(app.outdir) / ".nojekyll").touch()
    if app.config.root_doc != "index":
        root = f"{app.config.root_doc}.html"
        (Path(app.outdir) / "index.html").write_text(
            REDIRECT.format(title=app.config.html_title, root=root), encoding="utf-8"
        )


def setup(app):
    app.add_config_value("book_repository", "", "html")
    app.add_config_value("book_branch", "main", "html")
    app.add_config_value("book_notebook_branch", "notebooks", "html")
    app.add_config_value("comments_config", {}, "html")  # set by Jupyter Book for an extension that is not loaded
    app.add_directive("margin", Margin)
    app.connect("config-inited", settle_config)
    app.connect("html-page-context", page_context, priority=900)
    app.connect("build-finished", finish)
    for part in (mathematics, equations, docstrings, coursework):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
