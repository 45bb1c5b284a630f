"""One rank of several, started by torchrun: `torchrun … ranks.py FOLDER FORM`; writes what it found."""

import sys
from pathlib import Path

import torch
from boltzmann import brute
from torch import distributed


def found(form: str, rank: int = 0) -> dict[str, torch.Tensor]:
    if form == "different machines":
        brute.machine(20, 0.3, seed=rank).log_partition()
    if form == "different sizes":
        brute.machine(20 + rank, 0.3).log_partition()
    if form == "own data" and rank == 0:  # what is summed as a table is shared with nobody: no other rank is waited for
        brute.machine(5).moments()
        brute.machine(16, biases=False).thermodynamics(1.0)
    model = brute.machine(18, 300.0) if form == "cut" else brute.machine(23, 0.3)
    value = model.log_partition()
    of_j, of_b = torch.autograd.grad(value, [model.couplings, model.biases])
    moments, thermal = model.moments(), model.thermodynamics(0.8)
    mine = model.free_energy(torch.ones(1, 2, dtype=torch.float64) * (-1) ** rank) if form == "own data" else value
    return {
        "log Z": value.detach(),
        "of J": of_j,
        "of b": of_b,
        "mean": moments.mean,
        "second": moments.second,
        "heat capacity": thermal.heat_capacity,
        "mine": mine.detach(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    torch.save(found(sys.argv[2], distributed.get_rank()), Path(sys.argv[1]) / f"{distributed.get_rank()}.pt")
    distributed.destroy_process_group()
