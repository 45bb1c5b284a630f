"""Schedules from a table of noise rates: one β for each step, and times in steps.

    α_t² = ∏_{s≤t} (1 − β_s),    σ_t² = 1 − α_t²,    t = 0, 1 … T

Between two steps the signal decays at a constant rate, so that log α is a straight line from step to step: a process
in continuous time that the table samples exactly. (Ho's ᾱ_t is α_t² here; Ho, Jain & Abbeel 2020, eq. 4.)
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .schedule import Time, as_tensor, from_loss, inside, log_snr_of_loss, loss_of_log_snr

__all__ = ["Cosine", "FromBetas", "Linear"]


class FromBetas:
    """The schedule of the rates β_1 … β_T, with times from 0 to T in steps.

    FromBetas(torch.linspace(1e-4, 0.02, 1000))

    Raises: ValueError where a β is not strictly between 0 and 1.
    """

    def __init__(self, betas: Sequence[float] | Tensor):
        table = torch.as_tensor(betas, dtype=torch.float64, device="cpu").detach().clone()
        if table.ndim != 1 or len(table) == 0:
            raise ValueError(f"betas has shape {tuple(table.shape)}; give one rate for each step, at least one")
        bad = ~((table > 0) & (table < 1))
        if bad.any():
            k = int(bad.nonzero()[0])
            raise ValueError(
                f"betas[{k}] is {table[k].item():g}; each lies between 0 (no noise) and 1 (nothing is left), both "
                "excluded; .zero_terminal() makes a schedule that ends in pure noise"
            )
        self._set(table)

    def _set(self, betas: Tensor) -> None:
        losses = -torch.log1p(-betas)
        self.betas: Float[Tensor, " T"] = betas
        self._losses = torch.cat([losses.new_zeros(1), losses.cumsum(0)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FromBetas) and torch.equal(self.betas, other.betas)

    def __hash__(self) -> int:
        return hash((self.steps, float(self.betas.sum())))

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return len(self.betas)

    @property
    def end(self) -> float:
        """T."""
        return float(self.steps)

    def __call__(self, t: Time) -> tuple[Tensor, Tensor]:
        return from_loss(self._loss(inside(self, t)))

    def log_snr(self, t: Time) -> Tensor:
        """λ_t = log(α_t²/(1 − α_t²))."""
        return log_snr_of_loss(self._loss(inside(self, t)))

    def time(self, log_snr: Time) -> Tensor:
        """The t with λ_t = log_snr, between two steps where it falls there; T where the table ends earlier."""
        loss = loss_of_log_snr(as_tensor(log_snr))
        knots = self._losses.to(loss)
        k = torch.searchsorted(knots, loss, right=True).clamp(1, self.steps) - 1
        below, above = knots[k], knots[k + 1]
        part = torch.where(above.isinf(), -torch.expm1(below - loss), (loss - below) / (above - below))
        return k + part.clamp(max=1)

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """(½ log(1 − β), −log(1 − β)) of the step that ends at or after t; (−½, 1)/(T − t) in one to α = 0."""
        t = inside(self, t)
        k = t.ceil().long().clamp(1, self.steps)
        rate = self._losses.diff().to(t)[k - 1]
        rate = torch.where(rate.isinf(), 1 / (k - t).clamp(min=0), rate)
        return -rate / 2, rate

    def zero_terminal(self) -> "FromBetas":
        """The same schedule with α shifted and scaled so that α_T = 0 and α_1 is kept; its last β is 1.

        At T nothing of the data is left, so a prediction of the noise says nothing there: predict x_0 or v.
        Source: Lin, Liu, Li & Yang (2024), algorithm 1.
        """
        if self.steps < 2:
            raise ValueError("a schedule of one step has no other step to keep; give at least two betas")
        alphas = (-self._losses[1:] / 2).exp()
        moved = (alphas - alphas[-1]) * (alphas[0] / (alphas[0] - alphas[-1]))
        new = FromBetas.__new__(FromBetas)
        new._set(1 - (moved / torch.cat([moved.new_ones(1), moved[:-1]])).square())
        return new

    def _loss(self, t: Tensor) -> Tensor:
        knots = self._losses.to(t)
        k = t.floor().long().clamp(0, self.steps - 1)
        below, part = knots[k], t - k
        step = knots[k + 1] - below
        # a last step to α = 0 goes down a straight line in α², since log α has no finite end
        return below + torch.where(step.isinf(), -torch.log1p(-part.clamp(max=1)), part * step)


class Linear(FromBetas):
    """β_t on a straight line from `first` to `last`; by default Ho's 1,000 steps from 1e-4 to 0.02.

    The sum of the rates is what counts: the same two ends over 300 steps leave α_T² ≈ 0.048, and no pure noise.

    Raises: ValueError where steps < 1 or a rate is outside (0, 1). Source: Ho, Jain & Abbeel (2020), section 4.
    """

    def __init__(self, steps: int = 1000, first: float = 1e-4, last: float = 0.02):
        super().__init__(torch.linspace(first, last, _count(steps), dtype=torch.float64))


class Cosine(FromBetas):
    """α_t² = F(t/T)/F(0) with F(u) = cos²(½π (u + offset)/(1 + offset)), and β_t at most `largest`.

    Raises: ValueError where steps < 1 or a number is out of range. Source: Nichol & Dhariwal (2021), eq. 17.
    """

    def __init__(self, steps: int = 1000, offset: float = 0.008, largest: float = 0.999):
        if offset < 0 or not 0 < largest < 1:
            raise ValueError(f"offset is {offset:g} and largest {largest:g}; give offset ≥ 0 and largest in (0, 1)")
        u = torch.arange(_count(steps) + 1, dtype=torch.float64) / steps
        signal = ((u + offset) / (1 + offset) * (math.pi / 2)).cos().square()
        super().__init__((1 - signal[1:] / signal[:-1]).clamp(max=largest))


def _count(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"steps is {steps}; give at least one")
    return steps
