"""Training that is taken up again to the last bit.

Step t + 1 is a function of the weights, the optimizer's moments, the order of the batches and the generator's state.
A checkpoint keeps all of them, with where they come from, in one file (`storage` says how), so that a run that was
stopped after any save goes on exactly as the run that was not.
"""

import copy
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .loop import Step
from .storage import DIGEST, pack, replace, unpack

__all__ = ["Checkpoint"]


class Checkpoint:
    """Checkpoint(model=…, optimizer=…, ema=…, rng=…, batches=…): the parts that are saved and loaded together.

    A part is a torch.Generator or has state_dict() and load_state_dict(); name all on which the next step depends.
    Loading copies into the tensors that are there, so that parameters stay views of the optimizer's vector.

    Two runs in one folder do not mix: a run that saves where another has saved since is refused. (Should both save
    within one moment the later one wins, whole, and the other is refused at its next save.) Under torchrun each rank
    saves under its own name, since each has its own generator.

    Raises: ValueError where a part has no state.
    """

    def __init__(self, **parts: Any):
        for name, part in parts.items():
            if not (isinstance(part, torch.Generator) or hasattr(part, "load_state_dict")):
                raise ValueError(f"{name} is a {type(part).__name__}, which has no load_state_dict; leave it out")
        self.parts = parts
        self._known: dict[Path, bytes] = {}  # the checksum of what this run last saved or loaded there

    def save(self, path: str | os.PathLike[str], step: Step | int, **facts: Any) -> None:
        """Writes all parts to `path`, with the step, the versions, the seed, and facts (numbers, strings) of your own.

        Raises: ValueError where another run has saved at `path` since, or something is no plain data;
        FloatingPointError where `step` is a Step and it or an earlier one was not finite; OSError where the folder or
        the disk refuses. In each case the last save is still there, whole.
        """
        target = Path(path).absolute()
        self._refuse_another_run(target)
        if isinstance(step, Step):
            _ = step.value
            step = step.number
        about = {"step": step, **_provenance(self.parts.get("rng"))}
        if taken := sorted(facts.keys() & about.keys()):
            raise ValueError(f"{taken[0]} is among the facts that are kept anyway; give yours another name")
        raw = pack({"facts": about | facts, "parts": {name: _state(part) for name, part in self.parts.items()}})
        replace(target, raw, check=lambda: self._refuse_another_run(target))
        self._known[target] = raw[-DIGEST:]

    def load(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Puts all parts into the saved state, and returns the facts, `step` among them.

        The file may hold more: Checkpoint(model=model) reads the weights alone, Checkpoint() only the facts.

        Raises: ValueError where the file is cut short, altered or no checkpoint, or where a part is missing in it or
        does not fit; nothing is changed then. OSError where it cannot be read.
        """
        target = Path(path).absolute()
        raw = target.read_bytes()
        content = unpack(raw, str(target))
        saved = content["parts"]
        for name in self.parts.keys() - saved.keys():
            raise ValueError(f"{target} holds {', '.join(saved) or 'no part'}, and no {name}; leave {name} out")
        before = {name: copy.deepcopy(_state(part)) for name, part in self.parts.items()}
        try:
            for name, part in self.parts.items():
                _check(part, saved[name])
                _put(part, saved[name])
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            for other, part in self.parts.items():
                _put(part, before[other])
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name} does not fit what {target} holds: {reason}; make it as it was made then"
            ) from error
        self._known[target] = raw[-DIGEST:]
        return content["facts"]

    def _refuse_another_run(self, target: Path) -> None:
        try:
            with target.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - DIGEST))
                checksum = file.read()
        except FileNotFoundError:
            return
        if checksum != self._known.get(target):
            raise ValueError(
                f"{target} was saved by another run; load it to go on from it, choose another name for this run, "
                "or delete that file"
            )


def _provenance(rng: Any) -> dict[str, Any]:
    from .. import __version__

    versions = {"lecturecode": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    return versions | ({"seed": rng.initial_seed()} if isinstance(rng, torch.Generator) else {})


def _state(part: Any) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _put(part: Any, state: Any) -> None:
    part.set_state(state) if isinstance(part, torch.Generator) else part.load_state_dict(state)


def _check(part: Any, state: Any) -> None:
    """What torch would convert or take without a word: another precision, moments of another shape."""
    if isinstance(part, nn.Module):
        for name, mine in part.state_dict().items():
            theirs = state.get(name)
            if isinstance(theirs, Tensor) and theirs.dtype != mine.dtype:
                raise ValueError(f"{name} is {mine.dtype} here and {theirs.dtype} there")
    if isinstance(part, torch.optim.Optimizer):
        parameters = [p for group in part.param_groups for p in group["params"]]
        for number, moments in state["state"].items():
            for name, moment in moments.items():
                if isinstance(moment, Tensor) and moment.ndim and moment.shape != parameters[number].shape:
                    raise ValueError(f"{name} has {moment.numel()} numbers there and {parameters[number].numel()} here")
