"""Each chapter as a notebook that any Jupyter shows: equations numbered, boxes and references in plain Markdown.

`main(outdir)` writes them without Sphinx (that is `make notebooks`); the site calls the same code and carries them
for download, with the package's wheel and each page's MyST source.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import jupytext
import nbformat
import yaml
from plainmarkdown import Library, plain

BOOK = Path(__file__).resolve().parent.parent
INSTALL = """try:
    import lecturecode
except ModuleNotFoundError:
    {action}"""
UNSET = "the package is missing: in a clone of the book's repository run `pip install .`, then restart the kernel"


def chapters(book: Path) -> list[tuple[str, bool]]:
    """Document names in reading order, each with whether its part is numbered."""
    contents = yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8"))
    found = [(contents["root"], False)]

    def walk(entries, numbered):
        for entry in entries or ():
            if "file" in entry:
                found.append((entry["file"].removesuffix(".md"), numbered))
            walk(entry.get("sections"), numbered)

    walk(contents.get("chapters"), bool(contents.get("numbered")))
    for part in contents.get("parts") or ():
        walk(part["chapters"], bool(part.get("numbered")))
    return found


def is_notebook(path: Path) -> bool:
    return (
        path.is_file()
        and path.read_text(encoding="utf-8").startswith("---")
        and "```{code-cell}" in path.read_text(encoding="utf-8")
    )


def repository(book: Path) -> str:
    """owner/name of the public repository, or nothing: the environment first, then _config.yml."""
    config = yaml.safe_load((book / "_config.yml").read_text(encoding="utf-8"))
    set_here = (config.get("sphinx", {}).get("config") or {}).get("book_repository") or ""
    return os.environ.get("LECTURECODE_REPOSITORY", set_here).strip("/ ")


def wheel(book: Path) -> Path | None:
    found = sorted((book.parent / "build" / "wheel").glob("*.whl"))
    return found[-1] if found else None


def published(book: Path, package: Path) -> str:
    """The address of the wheel on the published site, or nothing."""
    owner, _, name = repository(book).partition("/")
    return f"https://{owner.lower()}.github.io/{name}/wheel/{package.name}" if name else ""


def install_cell(book: Path) -> str:
    """Does nothing where the package is there; else installs the wheel the site carries, or says how."""
    home, package = repository(book), wheel(book)
    if not home:
        return INSTALL.format(action=f'raise ModuleNotFoundError("{UNSET}") from None')
    if package is None:
        raise ValueError(
            f"book_repository is {home!r}, but build/wheel holds no wheel for its notebooks to install; run `make book`"
        )
    return INSTALL.format(action=f"%pip install --quiet {published(book, package)}")


def convert(book: Path, document: str, library: Library) -> nbformat.NotebookNode:
    path = book / f"{document}.md"
    notebook = jupytext.read(path, fmt="md:myst")
    if not any(cell.cell_type == "code" for cell in notebook.cells):
        raise ValueError(
            f"{path.relative_to(book)} was read as having no code cells; its header needs "
            "`extension: .md`, `format_name: myst` and `format_version`"
        )
    cells = [nbformat.v4.new_code_cell(install_cell(book))]
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, document, library)
            continue
        cell.source = re.sub(
            r"\{eq\}`([^`]+)`", lambda match: f"({library.numbers.get(match[1], match[1])})", cell.source
        )
        if caption := caption_of(cell, library):
            cells.append(nbformat.v4.new_markdown_cell(plain(caption, document, library)))
    for place, cell in enumerate(cells):
        cell["id"] = f"cell-{place}"
    notebook.cells = cells
    for key in [key for key in notebook.metadata if key not in ("kernelspec", "language_info")]:
        del notebook.metadata[key]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def caption_of(cell, library: Library) -> str:
    figure = (cell.metadata.get("mystnb") or {}).get("figure") or {}
    if not figure.get("caption"):
        return ""
    number = library.numbers.get(figure.get("name", ""), "")
    return f"**{number}.** {figure['caption']}" if number else figure["caption"]


def main(outdir: str | Path, book: Path = BOOK) -> list[Path]:
    """Writes all chapters that have code cells to outdir, in the folders of the book, and the released assignments."""
    from coursework import write  # which itself needs this module

    return [*write_chapters(Path(outdir), book), *write(Path(outdir), book, (".ipynb",))]


def write_chapters(outdir: Path, book: Path) -> list[Path]:
    entries = chapters(book)
    library = Library.read(book, entries)
    written = []
    for document, _ in entries:
        if is_notebook(book / f"{document}.md"):
            target = outdir / f"{document}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(convert(book, document, library), target)
            written.append(target)
    return written


def links(app, pagename: str, pathto) -> list[dict]:
    """What the head of a page offers: its notebook, Colab, its source."""
    source = Path(app.srcdir) / f"{pagename}.md"
    if not source.is_file():
        return []
    config, found = app.config, []
    if is_notebook(source):
        found.append({"title": "Notebook", "link": pathto(f"notebooks/{pagename}.ipynb", 1), "download": True})
        if config.book_repository:
            found.append(
                {
                    "title": "Open in Colab",
                    "link": "https://colab.research.google.com/github/"
                    f"{config.book_repository}/blob/{config.book_notebook_branch}/{pagename}.ipynb",
                }
            )
    if config.book_repository:
        where = f"https://github.com/{config.book_repository}/blob/{config.book_branch}/book/{pagename}.md"
    else:
        where = pathto(f"source/{pagename}.md", 1)
    found.append({"title": "Source", "link": where})
    return found


def publish(app) -> None:
    """Notebooks, sources and the wheel, into the built site."""
    book, out = Path(app.srcdir), Path(app.outdir)
    write_chapters(out / "notebooks", book)
    for document in sorted(app.env.found_docs):
        source = book / f"{document}.md"
        if source.is_file():
            target = out / "source" / f"{document}.md"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    package = wheel(book)
    if package is not None:
        (out / "wheel").mkdir(exist_ok=True)
        shutil.copyfile(package, out / "wheel" / package.name)
