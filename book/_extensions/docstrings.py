"""The package's docstrings on the reference page.

They are plain text: the equation first, then units, then `Raises:` and `Source:`. Plain text is not
reStructuredText (p(x | h) would open a substitution, x_ a link), so each paragraph is escaped, `code` becomes a
literal, and the two named parts become definitions.
"""

from __future__ import annotations

import re

PARTS = r"(?:^|(?<=[\s.]))(Raises|Source|Sources|Returns|Shapes|Units): "


def escaped(text: str) -> str:
    """Reads the same in reStructuredText as it does in the source."""
    pieces = re.split(r"(``.+?``|`[^`]+`)", text)
    for place, piece in enumerate(pieces):
        if piece.startswith("`") and len(piece) > 2:
            pieces[place] = f"``{piece.strip('`')}``\\ "
        else:
            pieces[place] = re.sub(r"([\\*`|_])", r"\\\1", piece)
    return "".join(pieces).rstrip("\\ ") if pieces[-1] == "" else "".join(pieces)


def paragraph(text: str) -> list[str]:
    """One paragraph; the named parts in it as a definition list."""
    pieces = re.split(PARTS, " ".join(text.split()))
    lines = [escaped(pieces[0].strip())] if pieces[0].strip() else []
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        lines += ["", name, f"    {escaped(body.strip())}"]
    return [*lines, ""]


def rewrite(lines: list[str]) -> list[str]:
    blocks, block = [], []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            blocks.append(block)
            block = []
    written: list[str] = []
    for block in blocks:
        if all(line.startswith("    ") for line in block):  # set apart in the source: kept line by line
            written += ["::", "", *block, ""]
        elif block[0].lstrip().startswith("- "):
            items = re.split(r"(?:^|\n)\s*- ", "\n".join(block))
            for item in filter(str.strip, items):
                written.append(f"- {escaped(' '.join(item.split()))}")
            written.append("")
        else:
            written += paragraph("\n".join(block))
    return written


def process(app, what, name, obj, options, lines) -> None:
    lines[:] = rewrite(lines)


def setup(app) -> None:
    app.connect("autodoc-process-docstring", process)
