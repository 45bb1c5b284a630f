"""Trains with a save after every step; the kill tests start it, end it by SIGKILL, and start it again.

    python run_to_kill.py FILE STEPS

Prints "ready" once its first save stands, and "done" after the last step. `weights` is what it must end with.
"""

import sys
from functools import partial
from pathlib import Path

import torch

from lecturecode import seeded
from lecturecode.data import bars_and_stripes
from lecturecode.nn import mlp
from lecturecode.training import Batches, Checkpoint, Ema, adam, fit
from lecturecode.vae import VAE, Bernoulli, Decoder, Encoder, StandardNormal


def parts(steps: int):
    """A small model with everything that its next step depends on."""
    rng = seeded(11)
    encoder, decoder = Encoder(mlp([16, 96, 8], rng)), Decoder(mlp([4, 96, 16], rng), Bernoulli())
    model = VAE(encoder, decoder, StandardNormal(4))
    optimizer = adam(model, 1e-2)
    batches = Batches(bars_and_stripes(4), 7, rng, steps=steps)
    return {"model": model, "optimizer": optimizer, "ema": Ema(model, 0.9), "rng": rng, "batches": batches}


def train(made, start: int, after_step=lambda step: None) -> torch.Tensor:
    loss = partial(made["model"].loss, rng=made["rng"])
    for step in fit(loss, made["batches"], made["optimizer"], start=start):
        made["ema"].update()
        after_step(step)
    return torch.cat([*(p.detach().flatten() for p in made["model"].parameters()), *made["ema"].average])


def main(path: Path, steps: int) -> None:
    torch.set_num_threads(1)
    made = parts(steps)
    checkpoint = Checkpoint(**made)
    start = checkpoint.load(path)["step"] if path.exists() else 0
    print("ready", flush=True)
    train(made, start, lambda step: checkpoint.save(path, step))
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
