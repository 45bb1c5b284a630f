"""The set-up on a bare clone, in a path with a space in it: killed half-way, finished, then with nothing left to do."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "node_modules", "build", "_build", "__pycache__", ".*_cache")


@pytest.fixture
def clone(tmp_path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "a path" / "with space", ignore=LEFT_OUT))


def setup(clone: Path, cwd: Path) -> str:
    command = [sys.executable, str(clone / "make.py"), "setup"]
    answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=1800)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.verify
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_setup_recovers_from_a_kill_and_is_idle_the_second_time(clone, tmp_path):
    command = [sys.executable, str(clone / "make.py"), "setup"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    site_packages = clone / ".venv" / "lib"
    deadline = time.monotonic() + 600
    while not list(site_packages.glob("*/site-packages/hatchling")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(killed.pid, 9)
    assert killed.wait() != 0

    assert "Making .venv afresh" in setup(clone, tmp_path)
    python = clone / ".venv" / "bin" / "python"
    checked = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True, timeout=300)
    assert checked.stdout == "No broken requirements found.\n"
    version = [python, "-c", "import torch; print(torch.__version__.split('+')[0])"]
    assert subprocess.run(version, capture_output=True, text=True, timeout=300).stdout == "2.13.0\n"

    assert setup(clone, tmp_path) == ""

    moved = clone.rename(clone.parent / "moved")
    assert "Making .venv afresh" in setup(moved, tmp_path)
