"""Repairs to the HTML that Sphinx and its extensions write: valid roles, boxes that fold without a script,
regions that scroll by themselves, landmarks that do not nest."""

from __future__ import annotations

from bs4 import BeautifulSoup, Tag

COLUMN = 68  # characters of code in the width of the text


def mend_navigation(soup: BeautifulSoup, sections: BeautifulSoup) -> tuple[str, str]:
    """The contents, part by part, with this page's own sections under its title; and the part it is in."""
    part = ""
    for caption in soup.select("p.caption"):
        caption.attrs = {}
        caption.string = caption.get_text(strip=True)
        following = caption.find_next_sibling()
        if following is not None and following.select_one("a.current"):
            part = caption.get_text(strip=True)
    within = sections.select_one("ul > li > ul")
    for link in soup.select("a"):
        page = "current" in link.get("class", []) and link.get("href") in ("#", "")
        link.attrs = {"href": link.get("href", "#")}
        if page:
            link["aria-current"], link["class"] = "page", "current"
            if within is not None:
                link.parent.append(within.extract())
    for link in soup.select("ul ul a"):
        link.attrs = {"href": link["href"]}
    for item in soup.select("ul, li"):
        item.attrs = {}
    number_titles(soup)
    return str(soup), part


def number_titles(soup: BeautifulSoup) -> None:
    """Numbers of chapters and sections in a span of their own, also where Sphinx writes them as text."""
    for link in soup.select("a"):
        first = link.contents[0] if link.contents else None
        if isinstance(first, str) and first[:1].isdigit():
            head, dot, rest = first.partition(". ")
            if dot and head.replace(".", "").isdigit():
                first.replace_with(rest)
                number = soup.new_tag("span", attrs={"class": "section-number"})
                number.string = f"{head} "
                link.insert(0, number)


def mend_body(soup: BeautifulSoup) -> None:
    for mend in (fold, landmarks, bibliography, footnotes, tables, cards, signatures, code, covers, identities):
        mend(soup)


def fold(soup: BeautifulSoup) -> None:
    """Boxes of class dropdown, and sphinx-design's, become <details>: they open without a script."""
    for box in soup.select("div.dropdown"):
        title = box.find("p", class_="admonition-title", recursive=False)
        if title is None:
            continue
        box.name = "details"
        box["class"] = ["box", *(name for name in box["class"] if name not in ("dropdown", "admonition"))]
        title.name = "summary"
        title.attrs = {key: value for key, value in title.attrs.items() if key == "id"}
        for link in title.select("a"):  # a link inside the handle would be a control inside a control
            link.unwrap()
    for box in soup.select("details.sd-dropdown"):
        box["class"] = ["box"]
        summary = box.find("summary", recursive=False)
        text = summary.select_one(".sd-summary-text")
        summary.attrs = {}
        summary.string = text.get_text() if text else summary.get_text()
        content = box.select_one("div.sd-summary-content")
        if content is not None:
            content.unwrap()


def landmarks(soup: BeautifulSoup) -> None:
    """Only the page has landmarks; notes and boxes inside the text have none."""
    for aside in soup.select("aside"):
        aside.name = "div"
        if "margin" in aside.get("class", []):
            aside["class"], aside["role"] = "margin", "note"
    for topic in soup.select("nav.contents"):
        topic.name = "div"
    for element in soup.select("[role=heading]"):
        del element["role"]


def bibliography(soup: BeautifulSoup) -> None:
    for group in soup.select("div.citation-list, div[role=list]"):
        group["role"] = "list"
    for entry in soup.select("div.citation"):
        entry["role"] = "listitem"
        for link in entry.select("a[role]"):
            del link["role"]
    for link in soup.select("a[role=doc-biblioref]"):
        del link["role"]


def footnotes(soup: BeautifulSoup) -> None:
    for note in soup.select("[role=doc-footnote], [role=doc-endnote], [role=note]:not(.margin)"):
        del note["role"]
    for link in soup.select("[role=doc-backlink], [role=doc-noteref]"):
        del link["role"]


def tables(soup: BeautifulSoup) -> None:
    for table in soup.select("table"):
        columns = max((len(row.find_all(["td", "th"], recursive=False)) for row in table.select("tr")), default=0)
        frame = soup.new_tag("div", attrs={"class": "table wide" if columns > 4 else "table"})
        if table.get("id"):
            frame["id"] = table["id"]
            del table["id"]
        table.wrap(frame)
        for written in table.select("td code"):  # a long name may break after each underscore
            words = written.get_text().split("_")
            if len(words) > 3:
                written.clear()
                for place, word in enumerate(words):
                    written.append(word if place == len(words) - 1 else f"{word}_")
                    written.append(soup.new_tag("wbr"))
        for cell in table.select("thead th"):
            cell["scope"] = "col"
            if not cell.get_text(strip=True) and not cell.find("img"):
                cell.name = "td"
                del cell["scope"]


def cards(soup: BeautifulSoup) -> None:
    """sphinx-design's grid and cards, without its stylesheet."""
    for grid in soup.select("div.sd-container-fluid"):
        row = grid.select_one("div.sd-row")
        grid.attrs = {"class": "cards"}
        if row is not None:
            row.unwrap()
        for column in grid.select("div.sd-col"):
            column.unwrap()
    for card in soup.select("div.sd-card"):
        card["class"] = "card"
        for part in card.select("div.sd-card-body, div.sd-card-title, div.sd-card-header, div.sd-card-footer"):
            part["class"] = ["card-title"] if "sd-card-title" in part["class"] else ["card-part"]
        for link in card.select("a.sd-stretched-link"):
            link["class"] = "stretched"
            title = card.select_one(".card-title")
            if title is not None:  # the title is the link; the whole card is its target
                link.string = title.get_text(strip=True)
                title.clear()
                title.append(link.extract())
    for element in soup.select("[class*=sd-]"):
        kept = [name for name in element["class"] if not name.startswith("sd-")]
        if kept:
            element["class"] = kept
        else:
            del element["class"]


def signatures(soup: BeautifulSoup) -> None:
    """A signature over several lines is text, not a list inside a term; links to places get names."""
    for part in soup.select("dt.sig dl, dt.sig dd"):
        part["class"] = "parameter" if part.name == "dd" else "parameters"
        part.name = "span"
    for name in soup.select("dl.py .sig-prename, dl.py .descclassname"):
        name.append(soup.new_tag("wbr"))
    for link in soup.select("a.headerlink"):
        target = link.get("href", "").lstrip("#")
        link["aria-label"] = f"Link to this place: {place(link)}" if place(link) else f"Link to {target}"
        if "title" in link.attrs:
            del link["title"]


def place(link: Tag) -> str:
    text = "".join(piece for piece in link.parent.find_all(string=True) if piece.parent is not link)
    return " ".join(text.split())[:60]


def code(soup: BeautifulSoup) -> None:
    """A cell or a listing with long lines may use the margin."""
    for block in soup.select("div.cell, div[class*=highlight-]"):
        if block.parent.name != "section":
            continue
        lines = [line for pre in block.select(".highlight pre") for line in pre.get_text().split("\n")]
        if max(map(len, lines), default=0) > COLUMN:
            block["class"] = [*block["class"], "wide"]


def covers(soup: BeautifulSoup) -> None:
    """Handles of hidden cells are named by the words on them; a rule before the footnotes is the style's affair."""
    for details in soup.select("details.hide"):
        summary = details.find("summary")
        words = [part.get_text(strip=True) for part in summary.select("p, span")]
        summary.attrs = {}
        summary.clear()
        for name, text in zip(("collapsed", "expanded"), words, strict=False):
            word = soup.new_tag("span", attrs={"class": name})
            word.string = text
            summary.append(word)
        details["class"] = ["box", "hide"]
    for rule in soup.select("hr.footnotes"):
        rule.decompose()


def identities(soup: BeautifulSoup) -> None:
    """Each name once: boxes call their inside alike, and unlabelled proofs themselves."""
    seen = set()
    for element in soup.find_all(id=True):
        inside = element.name == "section" and str(element["id"]).endswith("-content")
        if inside or element["id"] in seen:
            del element["id"]
        else:
            seen.add(element["id"])
