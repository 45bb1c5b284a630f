"""What the tests of the book share: the built site, a server for it, a browser.

The site is built before (`make book`); LECTURECODE_SITE names another folder to test instead. Where no Chromium is
found the browser's tests are skipped, unless LECTURECODE_REQUIRE_BROWSER=1 makes that a failure.
"""

import functools
import http.server
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(os.environ.get("LECTURECODE_SITE", ROOT / "book" / "_build" / "html"))
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WIDTHS = (1280, 390)

sys.path.insert(0, str(ROOT / "book" / "_extensions"))


def pages() -> list[str]:
    """Every page of the built site, but the one that only leads to the first."""
    found = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    return [page for page in found if page != "index.html"]


def pytest_generate_tests(metafunc):
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", pages() or ["(none is built)"])
    if "width" in metafunc.fixturenames:
        metafunc.parametrize("width", WIDTHS)


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site."""
    if not (SITE / "index.html").is_file():
        pytest.fail(f"there is no built site in {SITE}; run `make book` first")
    return SITE


class Quiet(http.server.SimpleHTTPRequestHandler):
    font_delay = 0.0

    def do_GET(self):
        if self.path.endswith(".woff2"):
            time.sleep(self.font_delay)
        super().do_GET()

    def log_message(self, format, *args):
        """Nothing: the tests say what went wrong."""


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A browser that leaves in mid-answer is no error of the site."""


def served(folder: Path, font_delay: float = 0.0):
    handler = type("Handler", (Quiet,), {"font_delay": font_delay})
    with Server(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def address(site):
    """The site on this machine's loopback."""
    yield from served(site)


@pytest.fixture(scope="session")
def slow_address(site):
    """The same, with fonts that come late, as over a poor line."""
    yield from served(site, font_delay=0.4)


def find_chromium() -> str | None:
    named = os.environ.get("LECTURECODE_CHROMIUM")
    if named:
        return shutil.which(named)
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def browser(site):
    program = find_chromium()
    if program is None:
        reason = "no Chromium is installed (looked for chromium, chromium-browser, google-chrome)"
        if os.environ.get("LECTURECODE_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, address):
    """visit(page, …) opens a page in a window of its own and returns it; `page.complaints` collects what went wrong."""
    windows = []

    def open_page(page: str, width: int = 1280, scheme: str = "light", base: str = address, **options):
        window = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            bypass_csp=options.pop("bypass_csp", False),
            **options,
        )
        windows.append(window)
        tab = window.new_page()
        tab.complaints = []
        tab.on("console", lambda said: said.type in ("error", "warning") and tab.complaints.append(said.text))
        tab.on("pageerror", lambda error: tab.complaints.append(f"page error: {error}"))
        tab.on("requestfailed", lambda request: tab.complaints.append(f"failed: {request.url}"))
        tab.on(
            "request",
            lambda request: (
                request.url.startswith((base, "data:", "file:", "blob:"))
                or tab.complaints.append(f"foreign: {request.url}")
            ),
        )
        tab.goto(page if "://" in page else base + page, wait_until="load")
        return tab

    yield open_page
    for window in windows:
        window.close()
