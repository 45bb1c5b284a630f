r"""MyST as plain Markdown, for notebooks opened where MyST is not understood.

A labelled ```{math}``` becomes $$ … \tag{2.1} $$, boxes become quotations, folded boxes <details>, references the
numbers and titles that the site prints. What cannot be shown is dropped; nothing is left as a raw directive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:.-]+)\}[ \t]*(?P<argument>.*)$")
NAMED = ("attention", "caution", "danger", "error", "hint", "important", "note", "seealso", "tip", "warning")
DROPPED = ("bibliography", "tableofcontents", "verified-equations", "eval-rst", "contents", "toctree", "index", "raw")


@dataclass
class Library:
    """Numbers and titles that references need, from all chapters."""

    numbers: dict[str, str] = field(default_factory=dict)  # label: "2.1" or "Figure 2.1"
    titles: dict[str, str] = field(default_factory=dict)  # label or document: its heading
    works: dict[str, tuple[str, str]] = field(default_factory=dict)  # citation key: authors, year
    counts: dict[tuple[str, str], int] = field(default_factory=dict)  # chapter and kind: how many so far

    @classmethod
    def read(cls, book: Path, entries: list[tuple[str, bool]]) -> Library:
        library, chapter = cls(), 0
        for document, numbered in entries:
            chapter += numbered
            text = (book / f"{document}.md").read_text(encoding="utf-8")
            library._headings(document, text)
            library._numbers(text, f"{chapter}." if numbered else "")
        library._works(book / "references.bib")
        return library

    def _headings(self, document: str, text: str) -> None:
        outside = re.sub(r"(?ms)^(`{3,}|:{3,}).*?^\1\s*$", "", text)
        for match in re.finditer(r"(?m)^(?:\(([^)\n]+)\)=\s*\n\s*)?#{1,6} +(.+)$", outside):
            if match.group(1):
                self.titles[match.group(1)] = match.group(2).strip()
            self.titles.setdefault(f"/{document}", match.group(2).strip())

    def _numbers(self, text: str, prefix: str) -> None:
        def count(kind: str, label: str, name: str) -> None:
            number = self.counts[prefix, kind] = self.counts.get((prefix, kind), 0) + 1
            if label:
                self.numbers[label] = f"{name}{prefix}{number}"

        for name, argument, options in directives(text):
            label = options.get("label") or options.get("name") or ""
            if name == "math" and label:
                count("math", label, "")
            elif name == "exercise" and "nonumber" not in options:
                count("exercise", label, "Exercise ")
            elif name.startswith("prf:") and name != "prf:proof":
                count(name, label, f"{name[4:].title()} ")
            elif name in ("figure", "table", "list-table") and (argument or label):
                count("figure" if name == "figure" else "table", label, "Figure " if name == "figure" else "Table ")
            elif name == "code-cell":
                figure = (
                    ((options.get("mystnb") or {}).get("figure") or {})
                    if isinstance(options.get("mystnb"), dict)
                    else {}
                )
                if figure.get("caption"):
                    count("figure", figure.get("name", ""), "Figure ")

    def _works(self, path: Path) -> None:
        if not path.is_file():
            return
        from pybtex.database import parse_file

        for key, entry in parse_file(str(path)).entries.items():
            people = [
                " ".join([*person.prelast_names, *person.last_names]).strip("{}")
                for person in entry.persons.get("author") or entry.persons.get("editor") or []
            ]
            names = people[0] if people else key
            if len(people) == 2:
                names = f"{people[0]} & {people[1]}"
            elif len(people) > 2:
                names = f"{people[0]} et al."
            self.works[key.lower()] = (re.sub(r"[{}]", "", names), entry.fields.get("year", ""))


def split_options(lines: list[str]) -> tuple[dict, list[str]]:
    if lines and lines[0].strip() == "---":
        end = next((n for n, line in enumerate(lines[1:], 1) if line.strip() == "---"), 0)
        return yaml.safe_load("\n".join(lines[1:end])) or {}, lines[end + 1 :]
    options, rest = {}, list(lines)
    while rest and (match := re.match(r"^\s*:([\w-]+):[ \t]*(.*)$", rest[0])):
        options[match.group(1)] = match.group(2).strip()
        rest.pop(0)
    return options, rest


def blocks(text: str):
    """The text in order: ("text", lines) and ("directive", name, argument, options, body)."""
    lines, place, loose = text.split("\n"), 0, []
    while place < len(lines):
        match = FENCE.match(lines[place])
        code = re.match(r"^ *(`{3,})", lines[place])
        found = match or code
        if found:
            fence = match["fence"] if match else found[1]
            close = re.compile(rf"^ *{re.escape(fence[0])}{{{len(fence)},}}\s*$")
            end = next((n for n in range(place + 1, len(lines)) if close.match(lines[n])), len(lines))
            if match:
                if loose:
                    yield "text", loose
                    loose = []
                indent = len(match["indent"])
                inside = [line[indent:] if line[:indent].strip() == "" else line for line in lines[place + 1 : end]]
                options, body = split_options(inside)
                yield "directive", match["name"], match["argument"].strip(), options, body
            else:
                if loose:
                    yield "text", loose
                    loose = []
                yield "code", lines[place : end + 1]
            place = end + 1
        else:
            loose.append(lines[place])
            place += 1
    if loose:
        yield "text", loose


def directives(text: str):
    """All directives, those inside others too, in the order of the source."""
    for block in blocks(text):
        if block[0] == "directive":
            _, name, argument, options, body = block
            yield name, argument, options
            if name not in ("code-cell", "code-block", "code", "math"):
                yield from directives("\n".join(body))


def plain(text: str, document: str, library: Library) -> str:
    written = []
    for block in blocks(text):
        if block[0] == "text":
            written.append(inline("\n".join(block[1]), document, library))
        elif block[0] == "code":
            written.append("\n".join(block[1]))
        else:
            written.append(directive(*block[1:], document, library))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(written)).strip("\n")


def quoted(title: str, body: str) -> str:
    text = f"**{title}**\n\n{body}" if title else body
    return "\n" + "\n".join(f"> {line}".rstrip() for line in text.strip().split("\n")) + "\n"


def folded(title: str, body: str) -> str:
    return f"\n<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>\n"


def directive(name, argument, options, body, document, library) -> str:
    def inside() -> str:
        return plain("\n".join(body), document, library)

    title = inline(argument, document, library)
    fold = "dropdown" in str(options.get("class", ""))
    if name == "math":
        number = library.numbers.get(options.get("label", ""), "")
        tag = f" \\tag{{{number}}}" if number else ""
        lines = "\n".join(body).strip()
        anchor = f'<a id="{options["label"]}"></a>\n\n' if options.get("label") else ""
        return f"\n{anchor}$$\n{lines}{tag}\n$$\n"
    if name in DROPPED:
        return ""
    if name in ("code-block", "code", "sourcecode"):
        return f"```{argument}\n" + "\n".join(body) + "\n```"
    if name == "exercise":
        number = library.numbers.get(options.get("label", ""), "Exercise")
        heading = f"{number} ({title})" if title else number
        return folded(heading, inside()) if fold else quoted(heading, inside())
    if name == "solution":
        number = library.numbers.get(argument, "the exercise")
        return folded(f"Solution to {number}", inside())
    if name.startswith("prf:"):
        number = library.numbers.get(options.get("label", ""), name[4:].title())
        heading = f"{number} ({title})" if title else number
        return folded(heading, inside()) if fold else quoted(heading, inside())
    if name == "dropdown":
        return folded(title or "More", inside())
    if name in ("list-table", "table"):
        number = library.numbers.get(options.get("name", ""), "")
        caption = " ".join(part for part in (f"**{number}.**" if number else "", title) if part)
        rows = list_table(body, document, library) if name == "list-table" else inside()
        return f"\n{caption}\n\n{rows}\n"
    if name in ("figure", "image"):
        return f"![{options.get('alt', title)}]({argument})\n\n{inside()}"
    if name in ("grid", "grid-item", "div", "container", "card", "grid-item-card", "glue", "glue:figure"):
        return (f"**{title}**\n\n" if title and "card" in name else "") + inside()
    if name == "margin":
        return quoted(title or "In the margin", inside())
    heading = title or (name.title() if name in NAMED else "")
    return folded(heading or "More", inside()) if fold else quoted(heading, inside())


def list_table(body: list[str], document: str, library: Library) -> str:
    rows: list[list[str]] = []
    for line in body:
        if match := re.match(r"^\s*[*-] +[*-] ?(.*)$", line):
            rows.append([match.group(1)])
        elif (match := re.match(r"^\s+[*-] ?(.*)$", line)) and rows:
            rows[-1].append(match.group(1))
        elif line.strip() and rows:
            rows[-1][-1] += " " + line.strip()
    cells = [[in_cell(inline(cell.strip(), document, library)) for cell in row] for row in rows]
    if not cells:
        return ""
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])


def in_cell(text: str) -> str:
    """A bar inside mathematics would end the cell."""
    text = " ".join(text.split())
    return re.sub(r"\$[^$]+\$", lambda math: re.sub(r"\|", r"\\vert ", math[0].replace(r"\|", r"\Vert ")), text)


def inline(text: str, document: str, library: Library) -> str:
    text = re.sub(r"(?m)^\(([^)\n]+)\)=\s*$", r'<a id="\1"></a>', text)
    text = re.sub(r"(?m)^\+\+\+.*$|^%.*$", "", text)
    return re.sub(r"\{([\w:+.-]+)\}`([^`]+)`", lambda match: role(match[1], match[2], document, library), text)


def role(name: str, content: str, document: str, library: Library) -> str:
    shown, target = content, content
    if match := re.match(r"^(.*?)\s*<([^>]+)>$", content, flags=re.S):
        shown, target = match.group(1), match.group(2)
    if name == "eq":
        return f"({library.numbers.get(target, target)})"
    if name in ("numref", "prf:ref"):
        number = library.numbers.get(target, "")
        return number or library.titles.get(target, target)
    if name in ("ref", "doc"):
        if shown != target:
            return f"*{shown}*"
        if name == "doc":
            parts: list[str] = [] if target.startswith("/") else document.split("/")[:-1]
            for step in target.strip("/").split("/"):
                parts = parts[:-1] if step == ".." else parts if step == "." else [*parts, step]
            return f"*{library.titles.get('/' + '/'.join(parts), target)}*"
        return library.numbers.get(target) or f"*{library.titles.get(target, target)}*"
    if name.startswith("cite"):
        works = [library.works.get(key.strip().lower(), (key.strip(), "")) for key in content.split(",")]
        if name in ("cite:t", "cite:ts"):
            return ", ".join(f"{who} ({year})" for who, year in works)
        return "(" + "; ".join(f"{who}, {year}" for who, year in works) + ")"
    if name == "math":
        return f"${content}$"
    if name == "test":
        return f"`{content.rpartition('::')[2]}`"
    if name.startswith("glue"):
        return f"`{content.partition(':')[0]}`"
    if name in ("term", "abbr", "dfn", "emphasis"):
        return f"*{shown}*"
    if name.startswith("py:") or name in ("func", "class", "meth", "mod", "code", "literal"):
        return f"`{shown.lstrip('~').rpartition('.')[2] if shown.startswith('~') else shown}`"
    return shown
