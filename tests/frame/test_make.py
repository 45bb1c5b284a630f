"""make.py and what calls it: the targets, the Makefile, the workflow, the hooks, the documents."""

import ast
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
import make  # noqa: E402  (the repository's root is no package)

sys.path.remove(str(ROOT))


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        **options,
    )


def test_help_lists_every_target_from_any_directory(tmp_path):
    answer = run(sys.executable, ROOT / "make.py", cwd=tmp_path)
    assert answer.returncode == 0
    listed = re.findall(r"^  (\w+) ", answer.stdout, flags=re.MULTILINE)
    assert listed == list(make.TARGETS)


def test_makefile_has_the_same_targets():
    (line,) = re.findall(r"^TARGETS := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert line.split() == list(make.TARGETS)


def test_an_unknown_target_is_refused_in_one_line():
    answer = run(sys.executable, ROOT / "make.py", "boook")
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "book" in answer.stderr


def test_make_py_starts_under_python_38_and_needs_no_package():
    tree = ast.parse((ROOT / "make.py").read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    modules += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert modules
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names


def targets_named_in(text: str) -> set[str]:
    """X of every `make X` in code (between backticks or in a fenced block) and of every make.py X."""
    code = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    code += [line for block in re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL) for line in block.split("\n")]
    named = {match for line in code if (match := re.match(r"make ([a-z]+)", line.strip()))}
    return {match[1] for match in named} | set(re.findall(r"make\.py ([a-z]+)", text))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_targets_that_documents_name_exist(name):
    named = targets_named_in((ROOT / name).read_text(encoding="utf-8"))
    assert named
    assert named <= set(make.TARGETS)


def test_every_step_of_the_workflow_is_a_target_an_action_or_an_installation():
    workflow = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step and not step["run"].startswith("sudo apt-get ")]
    assert {command.removeprefix("python make.py ") for command in commands} == {
        "test",
        "book",
        "notebooks",
        "publish",
    }
    actions = [step["uses"] for step in steps if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in actions)


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("vendor.github-workflows", ".github/workflows/book.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_files_for_others_follow_their_schema(schema, name):
    code = "from check_jsonschema import main; main()"
    answer = run(sys.executable, "-c", code, "--builtin-schema", schema, ROOT / name)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_pre_commit_hooks_are_local_make_targets():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    for hook in hooks[0]["hooks"]:
        assert hook["entry"].removeprefix("python3 make.py ") in make.TARGETS


@pytest.mark.skipif(os.name == "nt", reason="Windows has no execute bit and no bash")
def test_ci_runs_the_readme_command():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert run("bash", "-n", script).returncode == 0
    assert script.read_text().rstrip().endswith("\nmake test")
    assert "\nmake test\n" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def somewhere(tmp_path, monkeypatch):
    """make.py's folders in an empty repository, its path with a space in it."""
    root = tmp_path / "a clone"
    root.mkdir()
    monkeypatch.setattr(make, "ROOT", root)
    monkeypatch.setattr(make, "VENV", root / ".venv")
    monkeypatch.setattr(make, "BUILD", root / "build")
    monkeypatch.setattr(make, "SITE", root / "site")
    return root


def fake_python(folder: Path, name: str, answer: str) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    return program


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")
class TestTheChoiceOfPython:
    """Stand-ins on the PATH, and a running Python too old to use."""

    @pytest.fixture(autouse=True)
    def too_old(self, monkeypatch):
        monkeypatch.setattr(make.sys, "executable", "/nonexistent/python")
        monkeypatch.setattr(make.sys, "version_info", (3, 9, 18))
        monkeypatch.delenv("LECTURECODE_PYTHON", raising=False)

    def test_a_broken_311_is_passed_over_for_the_next_on_the_path(self, tmp_path, monkeypatch):
        broken = fake_python(tmp_path / "shims", "python3.11", "echo 'command not found' >&2; exit 127")
        whole = fake_python(tmp_path / "bin", "python3.11", "echo 3.11; echo venv")
        monkeypatch.setenv("PATH", os.pathsep.join([str(broken.parent), str(whole.parent)]))
        assert make.find_python() == [str(whole)]

    def test_311_comes_before_newer_ones(self, tmp_path, monkeypatch):
        fake_python(tmp_path / "bin", "python3.13", "echo 3.13; echo venv")
        preferred = fake_python(tmp_path / "bin", "python3.11", "echo 3.11; echo venv")
        monkeypatch.setenv("PATH", str(preferred.parent))
        assert make.find_python() == [str(preferred)]

    def test_a_missing_venv_module_names_the_debian_package(self, tmp_path, monkeypatch):
        program = fake_python(tmp_path / "bin", "python3.11", "echo 3.11")
        monkeypatch.setenv("PATH", str(program.parent))
        with pytest.raises(make.Stop, match=r"apt-get install python3\.11-venv"):
            make.find_python()

    def test_no_fitting_python_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(make.Stop, match=r"install Python 3\.11"):
            make.find_python()

    def test_a_chosen_python_is_the_only_candidate(self, tmp_path, monkeypatch):
        fake_python(tmp_path / "bin", "python3.11", "echo 3.11; echo venv")
        chosen = fake_python(tmp_path / "bin", "mine", "echo 3.12; echo venv")
        monkeypatch.setenv("PATH", str(chosen.parent))
        monkeypatch.setenv("LECTURECODE_PYTHON", "mine")
        assert make.find_python() == [str(chosen)]


def test_the_server_shows_the_site_and_names_a_port_in_use(somewhere):
    with pytest.raises(make.Stop, match="run `make book` first"):
        make.server(0)
    (somewhere / "site").mkdir()
    (somewhere / "site" / "index.html").write_text("the book")
    httpd = make.server(0)
    port = httpd.server_address[1]
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read() == b"the book"
        with pytest.raises(make.Stop, match=f"port {port}"):
            make.server(port)
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_publish_pushes_the_notebooks_and_touches_nothing_else(somewhere, tmp_path):
    origin = tmp_path / "origin.git"
    run("git", "init", "--bare", "--quiet", origin)
    run("git", "init", "--quiet", somewhere)
    run("git", "remote", "add", "origin", origin, cwd=somewhere)
    chapter = somewhere / "build" / "notebooks" / "vae" / "elbo.ipynb"
    with pytest.raises(make.Stop, match="make notebooks"):
        make.publish(make.argparse.Namespace())
    chapter.parent.mkdir(parents=True)
    for text in ("{}", '{"cells": []}'):  # the second time over the first
        chapter.write_text(text)
        make.publish(make.argparse.Namespace())
        assert run("git", "show", "notebooks:vae/elbo.ipynb", cwd=origin).stdout == text
    assert run("git", "ls-tree", "-r", "--name-only", "notebooks", cwd=origin).stdout == "vae/elbo.ipynb\n"
    assert run("git", "status", "--porcelain", cwd=somewhere).stdout == "?? build/\n"


def test_counts_are_read_from_the_reports(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "REPORTS", tmp_path)
    suite = '<testsuites><testsuite tests="9" failures="1" errors="1" skipped="2"/></testsuites>'
    for name in ("package", "site"):
        (tmp_path / f"{name}.xml").write_text(suite)
    assert make.counts(["package", "notebooks", "site"]) == {"passed": 10, "failed": 4, "skipped": 4}


class TestTogether:
    def test_a_failure_stops_only_what_needs_it(self, capsys):
        ran = []

        def fails():
            raise make.Stop("the reason")

        parts = {
            "book": (fails, ()),
            "site": (lambda: ran.append("site"), ("book",)),
            "links": (lambda: ran.append("links"), ("site",)),
            "package": (lambda: ran.append("package"), ()),
        }
        for at_once in (1, 2):
            ran.clear()
            results, times = make.together(parts, at_once)
            assert list(results) == list(parts) == list(dict.fromkeys([*results, *times]))
            assert results["book"] == "FAILED: the reason"
            assert results["site"] == results["links"] == "not run: the stage before it failed"
            assert results["package"] == "passed"
            assert ran == ["package"]
        capsys.readouterr()

    def test_two_run_side_by_side(self):
        meet = threading.Barrier(2, timeout=60)  # either alone would wait in vain
        results, _ = make.together({"book": (meet.wait, ()), "package": (meet.wait, ())}, 2)
        assert set(results.values()) == {"passed"}

    def test_a_part_waits_for_those_it_needs(self):
        order = []
        parts = {
            "site": (lambda: order.append("site"), ("book",)),
            "book": (lambda: order.append("book"), ()),
        }
        make.together(parts, 2)
        assert order == ["book", "site"]

    def test_lines_of_a_command_name_their_part(self, capfd):
        make.together({"lint": (lambda: make.run([sys.executable, "-c", "print('a\\nb')"], "no"), ())}, 2)
        assert capfd.readouterr().out.splitlines()[2:4] == ["lint      | a", "lint      | b"]

    def test_a_command_that_fails_is_a_failure_there_too(self, capfd):
        results, _ = make.together({"lint": (lambda: make.run([sys.executable, "-c", "exit(3)"], "no"), ())}, 2)
        assert results == {"lint": "FAILED: no (exit code 3)"}
        capfd.readouterr()
