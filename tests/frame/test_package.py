"""The package as others get it: what the wheel holds, and that importing it changes nothing."""

import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built as make.py builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--disable-pip-version-check", "-w", folder, ROOT], check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    assert built.name.endswith("-py3-none-any.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "lecturecode").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == files
    assert {"lecturecode/py.typed", "lecturecode/data/digits.npz"} <= held


def test_the_wheel_asks_for_the_six_libraries_and_carries_its_licence(wheel):
    (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    message = email.message_from_bytes(wheel.read(metadata))
    needed = [Requirement(line) for line in message.get_all("Requires-Dist", [])]
    always = {requirement.name for requirement in needed if requirement.marker is None}
    assert always == {"numpy", "torch", "matplotlib", "tqdm", "jaxtyping", "safetensors"}
    assert all("extra ==" in str(requirement.marker) for requirement in needed if requirement.marker)
    assert message["Requires-Python"] == ">=3.11"
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


IMPORT_AND_COMPARE = """
import logging, os, random, sys, warnings
import numpy, torch, matplotlib
import torch.distributions

def state():
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "torch draws": torch.get_rng_state().tolist(),
        "numpy draws": str(numpy.random.get_state()),
        "python draws": random.getstate(),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "validation": torch.distributions.Distribution._validate_args,
        "numpy errors": numpy.geterr(),
        "warnings": list(warnings.filters),
        "log handlers": list(logging.root.handlers),
        "log level": logging.root.level,
        "matplotlib": dict(matplotlib.rcParams),
        "variables": dict(os.environ),
        "path": list(sys.path),
    }

import contextlib, tqdm, jaxtyping, safetensors.torch, matplotlib.pyplot  # their own effects are not ours
before = state()
import importlib, pkgutil, lecturecode
names = [module.name for module in pkgutil.walk_packages(lecturecode.__path__, "lecturecode.")]
for name in names:
    importlib.import_module(name)
after = state()
changed = [key for key in before if before[key] != after[key]]
assert not changed, changed
assert "beartype" not in sys.modules
print(len(names))
"""


def test_importing_the_package_changes_no_global_state():
    command = [sys.executable, "-c", IMPORT_AND_COMPARE]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip().isdigit(), "importing prints something"
    assert int(answer.stdout) >= 10
    assert answer.stderr == ""
