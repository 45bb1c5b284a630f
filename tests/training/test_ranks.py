"""Two ranks by torchrun on gloo: the same as one rank with the joint batch, to 1e-12 in float64."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lecturecode import seeded
from lecturecode.training import Batches

SCRIPT = Path(__file__).with_name("ranks.py")
_spec = importlib.util.spec_from_file_location("ranks", SCRIPT)
ranks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(ranks)


def two(folder: Path, form: str) -> list[dict]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", SCRIPT]
    run = subprocess.run([*command, folder, form], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("form", ["one seed", "seeds of their own", "DistributedDataParallel"])
def test_two_ranks_equal_one_with_the_joint_batch(tmp_path, form):
    """Also where the ranks start with other weights: rank 0's count."""
    losses, weights = ranks.train(0, 1, form)
    for found in two(tmp_path, form):
        torch.testing.assert_close(found["losses"], losses, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found["weights"], weights, rtol=1e-12, atol=1e-12)


def test_a_bad_step_of_one_rank_is_skipped_by_both(tmp_path):
    """The first bad step is written last; the ranks agree about it and about all weights."""
    losses, weights = ranks.train(0, 1, "bad")
    first, second = two(tmp_path, "bad")
    assert losses[-1] >= 1
    assert torch.equal(first["weights"], second["weights"])
    assert first["losses"][-1] == second["losses"][-1] == losses[-1]
    torch.testing.assert_close(first["weights"], weights, rtol=1e-12, atol=1e-12)


def test_the_shares_of_the_ranks_are_the_joint_batch():
    data = torch.arange(30.0)
    joint, *parts = (
        torch.stack(list(Batches(data, 6, seeded(1), steps=9, share=share))) for share in [(0, 1), (0, 2), (1, 2)]
    )
    assert torch.equal(torch.cat(parts, 1), joint)


@pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 4), (0, 0)])
def test_shares_that_are_refused(share):
    with pytest.raises(ValueError, match="give \\(rank, ranks\\) with ranks a divisor of size"):
        Batches(torch.zeros(8, 1), 6, seeded(1), steps=1, share=share)
