"""What all tests share: the devices that are there, and the file that says which equations were checked."""

import json
from pathlib import Path

import harness
import labels
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def _devices() -> list[str]:
    there = ["cpu"]
    if torch.cuda.is_available():
        there.append("cuda")
    if torch.backends.mps.is_available():
        there.append("mps")
    return there


@pytest.fixture(params=_devices())
def device(request) -> torch.device:
    """Each device that this machine has, one after the other."""
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request, device) -> torch.dtype:
    """Each precision that the device has."""
    if device.type == "mps" and request.param == torch.float64:
        pytest.skip("MPS has no float64")
    return request.param


def pytest_sessionfinish(session, exitstatus):
    """Writes build/equations.json when every equation test ran and passed; a part of them writes nothing."""
    if exitstatus == 0 and set(harness.RESULTS) >= set(labels.held_by_tests()):
        target = ROOT / "build" / "equations.json"
        target.parent.mkdir(exist_ok=True)
        draft = target.with_suffix(".draft")
        draft.write_text(json.dumps(harness.RESULTS, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        draft.replace(target)
