"""Which weights to keep: a score on data that was not trained on, and the best of its values.

    score = (1/N) Σ_i s(x_i; θ) over the validation part,    θ* = the θ_t with the largest score seen

Training stops when `patience` scores in a row were no better. The test part is looked at once, with θ*.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Best", "mean_score"]


@torch.no_grad()
def mean_score(score: Callable[[Any], Tensor], data: Tensor, size: int = 1024) -> Float[Tensor, ""]:
    """The mean over all rows of `data` of score(rows) → one number for each row, in pieces of `size` rows.

    mean_score(lambda x: model.elbo(x, 8, seeded(0)).value, validation)

    Raises: ValueError where there are no rows, size < 1, or the score is not one number a row.
    """
    if len(data) == 0 or size < 1:
        raise ValueError(f"{len(data)} rows in pieces of {size}; pass at least one row, and a size of at least one")
    total = torch.zeros((), dtype=torch.float64 if data.device.type != "mps" else torch.float32, device=data.device)
    for rows in data.split(size):
        values = score(rows)
        if values.shape != rows.shape[:1]:
            raise ValueError(f"the score of {len(rows)} rows has shape {tuple(values.shape)}; give one number a row")
        total += values.sum(dtype=total.dtype)
    return total / len(data)


class Best:
    """Keeps the weights with the highest score.

    best = Best(model, patience=5)
    for step in fit(…):
        if step.number % 100 == 0:
            best.update(mean_score(…))
            if best.stop:
                break
    best.restore()

    Raises: ValueError where patience < 1.
    """

    def __init__(self, model: nn.Module, patience: int | None = None):
        if patience is not None and patience < 1:
            raise ValueError(f"patience is {patience}; allow at least one score that is no better")
        self.model, self.patience = model, patience
        self.score, self.waited = -math.inf, 0
        self.kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def update(self, score: float | Tensor) -> bool:
        """Keeps the present weights where `score` is the highest so far; says whether it is.

        Raises: ValueError where the score is NaN.
        """
        score = float(score)
        if math.isnan(score):
            raise ValueError("the score is nan; look for log 0 or an overflow in it, and lower the learning rate")
        better = score > self.score
        self.waited = 0 if better else self.waited + 1
        if better:
            self.score = score
            for name, tensor in self.model.state_dict().items():
                self.kept[name].copy_(tensor)
        return better

    @property
    def stop(self) -> bool:
        """Whether `patience` scores in a row were no better than the best."""
        return self.patience is not None and self.waited >= self.patience

    def restore(self) -> None:
        """Copies the kept weights into the model, in place."""
        self.model.load_state_dict(self.kept)

    def state_dict(self) -> dict[str, Any]:
        """The kept weights, their score, and how many scores were no better since."""
        return {"kept": dict(self.kept), "score": self.score, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copies saved weights and their score into this one.

        Raises: ValueError where they are of another model.
        """
        mine, theirs = ({n: (tuple(t.shape), t.dtype) for n, t in kept.items()} for kept in (self.kept, state["kept"]))
        if mine != theirs:
            raise ValueError(f"the kept weights are {mine} here and {theirs} there")
        for name, tensor in state["kept"].items():
            self.kept[name].copy_(tensor)
        self.score, self.waited = state["score"], state["waited"]
