"""Two and three ranks by torchrun on gloo: every rank gets the number that one process gets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from boltzmann import ranks

SCRIPT = Path(ranks.__file__)


def started(folder: Path, form: str, count: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", SCRIPT]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, folder, form], capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.parametrize(("form", "count"), [("streamed", 2), ("cut", 2), ("own data", 3)])
def test_all_ranks_get_the_same_number(tmp_path, form, count):
    """What belongs to a rank's own data is not shared: three ranks ask for two different free energies."""
    run = started(tmp_path, form, count)
    assert run.returncode == 0, run.stderr
    loaded = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(count)]
    for rank, one in enumerate(loaded):
        alone = ranks.found(form, rank)
        for name, value in one.items():
            torch.testing.assert_close(value, alone[name], rtol=1e-12, atol=1e-12)
            if name != "mine":
                assert torch.equal(value, loaded[0][name]), name


@pytest.mark.parametrize("form", ["different machines", "different sizes"])
def test_different_machines_are_refused(tmp_path, form):
    run = started(tmp_path, form, 2)
    assert run.returncode != 0
    assert "the ranks hold different machines" in run.stderr
