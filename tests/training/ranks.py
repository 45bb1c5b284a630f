"""One rank of two, started by torchrun: `torchrun … ranks.py FOLDER FORM`; writes its losses and weights."""

import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lecturecode import seeded
from lecturecode.nn import mlp
from lecturecode.training import Batches, adam, fit

f64 = torch.float64


class Loss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        x, y = batch
        return (self.model(x) - y).square().mean()


def train(rank: int, ranks: int, form: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and final weights of ten steps on a joint batch of 8; a bad step for one rank where form is "bad"."""
    data = torch.randn(50, 3, generator=seeded(1), dtype=f64)
    target = torch.sin(data.sum(1, keepdim=True))
    if form == "bad":
        target[7] = 1e308
    model = mlp([3, 16, 1], seeded(2 if form == "one seed" else 2 + rank), dtype=f64)
    loss, optimizer = Loss(model), adam(model, 0.01)
    if form == "DistributedDataParallel" and ranks > 1:
        loss = DistributedDataParallel(loss)
    batches = Batches((data, target), 8, seeded(3), steps=10, share=(rank, ranks))
    losses, at = [], 0
    try:
        for step in fit(loss, batches, optimizer):
            losses.append(step.loss)
            at = int(step.first_bad)
    except FloatingPointError:
        losses.append(torch.tensor(float(at), dtype=f64))
    return torch.stack(losses), optimizer.param_groups[0]["params"][0].detach()


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    losses, weights = train(rank, ranks, sys.argv[2])
    torch.save({"losses": losses, "weights": weights}, Path(sys.argv[1]) / f"{rank}.pt")
    distributed.destroy_process_group()
