"""Which equations the chapters display and which the tests hold, read from the sources."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^(?P<fence>(`{3,}|:{3,}))\{math\}[^\n]*\n(?P<body>.*?)^(?P=fence)", re.MULTILINE | re.DOTALL)
LABEL = re.compile(r"^:label:\s*(\S+)\s*$", re.MULTILINE)
CODE = re.compile(r"^(`{3,})\{code-cell\}.*?^\1", re.MULTILINE | re.DOTALL)


def chapters() -> list[Path]:
    """Every MyST source of the book that readers see."""
    found = (ROOT / "book").rglob("*.md")
    return sorted(p for p in found if not any(part.startswith("_") for part in p.relative_to(ROOT / "book").parts))


def displayed() -> dict[str, list[str]]:
    """label -> the chapters that define it (one, if all is well)."""
    found: dict[str, list[str]] = {}
    for chapter in chapters():
        for display in FENCE.finditer(chapter.read_text(encoding="utf-8")):
            for label in LABEL.findall(display["body"]):
                found.setdefault(label, []).append(chapter.relative_to(ROOT).as_posix())
    return found


def unlabelled() -> list[str]:
    """Displays without a label, and displays written in another way than the {math} directive."""
    found = []
    for chapter in chapters():
        text = CODE.sub("", chapter.read_text(encoding="utf-8"))
        name = chapter.relative_to(ROOT).as_posix()
        for display in FENCE.finditer(text):
            if not LABEL.search(display["body"]):
                found.append(f"{name}: {display['body'].strip()[:60]}")
        rest = FENCE.sub("", text)
        found += [f"{name}: {m[0]}" for m in re.finditer(r"\$\$|\\begin\{(align|equation|gather)\*?\}", rest)]
    return found


def held_by_tests() -> dict[str, str]:
    """label -> the test that holds it, from the decorators in tests/equations."""
    found: dict[str, str] = {}
    for module in sorted((ROOT / "tests" / "equations").glob("test_*.py")):
        for test in ast.parse(module.read_text(encoding="utf-8")).body:
            if not isinstance(test, ast.FunctionDef):
                continue
            for decorator in test.decorator_list:
                match decorator:
                    case ast.Call(func=ast.Name(id="equation"), args=[ast.Constant(value=str(label)), *_]):
                        found[label] = f"{module.name}::{test.name}"
    return found
