"""Trains with a save after every step; the kill tests start it, end it by SIGKILL inside a save, and start it again.

    python run_to_kill.py FILE

Reads one line, {"save": 3, "at": "writing", "share": 0.4}: in its third save it says each of `POINTS` that it passes,
one a line, and at the named one it waits for its end. "share" is how much of the draft is written at "writing".
"""

import io
import json
import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lecturecode import seeded
from lecturecode.data import bars_and_stripes
from lecturecode.nn import mlp
from lecturecode.training import Batches, Checkpoint, Ema, adam, fit
from lecturecode.vae import VAE, Bernoulli, Decoder, Encoder, StandardNormal

POINTS = (
    "started",  # the last save is about to be looked at
    "opening",  # the bytes are ready, there is no draft
    "created",  # the draft is there, empty and not locked
    "writing",  # a part of the bytes is written
    "written",  # all of them, not yet forced to the disk
    "forced",
    "renaming",
    "renamed",  # the folder is not yet forced to the disk
    "ended",  # it is; the save has not returned
)


def parts(steps: int):
    """A small model with everything that its next step depends on."""
    rng = seeded(11)
    encoder, decoder = Encoder(mlp([16, 96, 8], rng)), Decoder(mlp([4, 96, 16], rng), Bernoulli())
    model = VAE(encoder, decoder, StandardNormal(4))
    optimizer = adam(model, 1e-2)
    batches = Batches(bars_and_stripes(4), 7, rng, steps=steps)
    return {"model": model, "optimizer": optimizer, "ema": Ema(model, 0.9), "rng": rng, "batches": batches}


def trained(made, start: int = 0):
    """Each step's number, as it is done."""
    loss = partial(made["model"].loss, rng=made["rng"])
    for step in fit(loss, made["batches"], made["optimizer"], start=start):
        made["ema"].update()
        yield step


def weights(made) -> torch.Tensor:
    return torch.cat([*(p.detach().flatten() for p in made["model"].parameters()), *made["ema"].average])


class Watch:
    """Says where a save is. It stands around the calls to the system, and each does what it always does."""

    def __init__(self, at: str, share: float):
        self.at, self.share, self.said = at, share, set()

    def say(self, point: str) -> None:
        if point in self.said:
            return
        self.said.add(point)
        os.write(1, f"{point}\n".encode())  # without a buffer: it is out when the next call is made
        if point == self.at:
            os.read(0, 1)
            os._exit(1)  # nobody is there to end it

    def begin(self, path: Path) -> None:
        watch, open_file, fsync, replace = self, io.open, os.fsync, os.replace

        class Halting(io.FileIO):
            def write(self, data: Any, /) -> int:
                """Takes the first part only, as the system may: the caller goes on with the rest."""
                whole = "writing" in watch.said
                count = super().write(data if whole else data[: 1 + int(watch.share * (len(data) - 2))])
                watch.say("writing")
                return count

        def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if file == path:
                self.say("started")
            if mode != "xb":
                return open_file(file, mode, *rest, **named)
            self.say("opening")
            draft = io.BufferedWriter(Halting(file, mode))
            self.say("created")
            return draft

        def forced(descriptor: int) -> None:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            if not is_folder:
                self.say("written")
            fsync(descriptor)
            self.say("ended" if is_folder else "forced")

        def replaced(source: Any, target: Any) -> None:
            self.say("renaming")
            replace(source, target)
            self.say("renamed")

        io.open, os.fsync, os.replace = opened, forced, replaced  # type: ignore[assignment]


def main(path: Path) -> None:
    torch.set_num_threads(1)
    made = parts(1_000_000)
    checkpoint = Checkpoint(**made)
    if not (line := sys.stdin.readline()):
        return
    order = json.loads(line)
    start = checkpoint.load(path)["step"] if path.exists() else 0
    for step in trained(made, start):
        if step.number == start + order["save"]:
            Watch(order["at"], order["share"]).begin(path)
        checkpoint.save(path, step)
        if step.number == start + order["save"]:
            os.write(1, b"returned\n")
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
