"""Figures that follow the page: the SVG of a cell is set into the page, its palette mapped to the site's colours.

lecturecode.plot draws in the colours of PALETTE; a browser then shows them as the variables of book.css, so that
one figure serves light and dark. Other colours and rasters stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path

from bs4 import BeautifulSoup
from sphinx.util import logging

logger = logging.getLogger(__name__)

PALETTE = {
    "#1c1c1c": "ink",
    "#000000": "ink",
    "#6b6b6b": "muted",
    "#d9d9d9": "grid",
    "#ffffff": "paper",
    "#0072b2": "0",
    "#d55e00": "1",
    "#009e73": "2",
    "#cc79a7": "3",
    "#e69f00": "4",
    "#56b4e9": "5",
}
POINT = 96 / 72  # CSS pixels


def variable(match: re.Match) -> str:
    name = PALETTE[match.group(0).lower()]
    return f"var(--series-{name})" if name.isdigit() else f"var(--figure-{name})"


def adapt(svg: str, prefix: str, alt: str) -> str:
    """One SVG file as an element of a page: unique ids, mapped colours, a name for those who do not see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>|<title>.*?</title>", "", svg, flags=re.S)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', svg)
    # the sheet of paper behind the drawing
    svg = re.sub(rf'<g id="{prefix}patch_1">\s*<path [^>]*fill: #ffffff[^>]*/>\s*</g>', "", svg, count=1)
    svg = re.sub("|".join(PALETTE), variable, svg, flags=re.I)
    svg = re.sub(r">\s+<", "><", svg)
    opening, rest = svg.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', opening)
    size = [re.search(rf'\b{name}="([\d.]+)(pt|px)?"', opening) for name in ("width", "height")]
    if box and all(size):
        width, height = (round(float(s.group(1)) * (POINT if s.group(2) == "pt" else 1)) for s in size)
        shape = f' width="{width}" height="{height}" viewBox="{box.group(1)}"'
    else:
        shape = f' viewBox="{box.group(1)}"' if box else ""
    name = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<svg{shape} role="img" aria-label="{name}">{rest}'


def looks_like_a_path(alt: str) -> bool:
    return not alt.strip() or bool(re.search(r"\.(svg|png|jpe?g)$|^\S*/\S*$", alt.strip()))


def inline(app, pagename: str, soup: BeautifulSoup) -> None:
    written = {name: Path(app.srcdir) / source for source, name in app.builder.images.items()}
    for count, image in enumerate(soup.select("img"), start=1):
        alt = image.get("alt", "")
        if looks_like_a_path(alt):
            logger.warning("a figure's alt text is %r; describe it in `mystnb: image: alt:`", alt, location=pagename)
        source = written.get(image.get("src", "").rpartition("/")[2])
        if source is None or source.suffix != ".svg":
            continue
        drawing = adapt(source.read_text(encoding="utf-8"), f"f{count}-", alt)
        frame = BeautifulSoup(f'<div class="figure-body">{drawing}</div>', "html.parser").div
        link = image.find_parent("a", class_="image-reference")
        (link or image).replace_with(frame)


def drop_copies(app) -> None:
    """Files of figures that now stand in the pages."""
    folder = Path(app.outdir) / "_images"
    for name in app.builder.images.values():
        if name.endswith(".svg"):
            (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
