"""Which device is chosen, with every combination of hardware played by a stand-in."""

import pytest
import torch

from lecturecode import best_device, best_dtype
from lecturecode.device import VARIABLE


@pytest.fixture
def machine(monkeypatch):
    """Sets what torch finds: the number of CUDA devices, and whether there is MPS."""

    def set_up(cuda: int = 0, mps: bool = False, asked: str | None = None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        if asked is None:
            monkeypatch.delenv(VARIABLE, raising=False)
        else:
            monkeypatch.setenv(VARIABLE, asked)

    return set_up


@pytest.mark.parametrize(
    ("cuda", "mps", "wanted"),
    [(0, False, "cpu"), (0, True, "mps"), (1, False, "cuda"), (2, True, "cuda")],
)
def test_the_fastest_that_is_there(machine, cuda, mps, wanted):
    machine(cuda, mps)
    assert best_device() == torch.device(wanted)


@pytest.mark.parametrize(
    ("asked", "cuda", "mps"), [("cpu", 2, True), ("cuda", 1, False), ("cuda:1", 2, False), ("mps", 1, True)]
)
def test_the_variable_wins(machine, asked, cuda, mps):
    machine(cuda, mps, asked)
    assert best_device() == torch.device(asked)


def test_an_empty_variable_is_no_wish(machine):
    machine(asked="  ")
    assert best_device() == torch.device("cpu")
    machine(asked=" cpu ")
    assert best_device() == torch.device("cpu")


@pytest.mark.parametrize(("asked", "cuda"), [("cuda", 0), ("cuda:1", 1), ("mps", 0), ("meta", 0)])
def test_a_device_that_is_not_there_is_refused(machine, asked, cuda):
    machine(cuda, asked=asked)
    with pytest.raises(ValueError, match=rf"{VARIABLE}='{asked}', but torch finds no such device here; unset it"):
        best_device()


@pytest.mark.parametrize("asked", ["gpu", "cuda:x", "the fast one"])
def test_a_word_that_names_no_device_is_refused(machine, asked):
    machine(asked=asked)
    with pytest.raises(ValueError, match=rf"{VARIABLE}='{asked}' is no torch device; set it to cpu, cuda"):
        best_device()


def test_the_device_named_here_can_be_used():
    torch.zeros(1, device=best_device())


def test_mps_falls_to_float32_with_a_warning():
    with pytest.warns(UserWarning, match="MPS has no float64; float32 is used"):
        assert best_dtype("mps") == torch.float32


@pytest.mark.parametrize(
    ("device", "wanted"),
    [("cpu", torch.float64), ("cuda", torch.float64), ("mps", torch.float32), ("cpu", torch.float32)],
)
def test_elsewhere_the_wish_is_granted_silently(device, wanted):
    assert best_dtype(torch.device(device), wanted) == wanted
