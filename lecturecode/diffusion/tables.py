"""Samplers as tables of coefficients, made once for a grid of times t_0 > t_1 > … > t_N.

    D_k = x̂_0(x, t_k),    x ← a_k x + Σ_j b_kj D_{k−j} + n_k ε,    ε ~ N(0, I),    k = 0, 1 …

A row is one call of the denoiser. All that a method knows about the schedule is in its numbers, taken in float64 from
log SNRs: with Δ = λ_t − λ_r < 0 for a step from t to r, σ²_{t|r}/σ_t² = 1 − e^Δ and α_t σ_r/(α_r σ_t) = e^{Δ/2}, and
nothing cancels in a short step, at α_t = 0 (Δ = −∞) or at r = 0 (Δ = −∞).

Methods with a memory (b has a column for each D that is kept) and methods of two stages fit the same form. For Heun's
step, x' = a x + b D_0 and then x + ½ (slope at x + slope at x'), both slopes linear in x and D: with x = (x' − b D_0)/a
its second row is made of x', D_1 and D_0. Noise that is added before a call belongs to the row before it, and what
comes before the first call is the opening: x ← opening_0 x + opening_1 ε.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from .. import checks
from .schedule import Schedule, as_tensor, inside

__all__ = ["Table", "ancestral", "ddim", "euler"]

Times = Sequence[float | int] | Tensor


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a sampler: the time of each call, a, b (one column for D_k, D_{k−1} …), and the noise's n.

    `end` is the time that the last row reaches, `opening` what is done to x_noise first. All are float64 on the CPU.
    `rows` has the same as Python numbers: the time of a call, the time reached by it, the pairs (j, b_j) with b_j ≠ 0,
    and n.

    Raises: ValueError where the shapes disagree, a number is not finite, a noise is negative, or a row asks for an
    answer from before the first call.
    """

    times: Float64[Tensor, " calls"]
    a: Float64[Tensor, " calls"]
    b: Float64[Tensor, "calls memory"]
    noise: Float64[Tensor, " calls"]
    end: float = 0.0
    opening: tuple[float, float] = (1.0, 0.0)
    rows: list[tuple[float, float, list[tuple[int, float]], float]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        checks.shape("times", self.times, (None,))
        checks.shape("a", self.a, (self.calls,))
        checks.shape("b", self.b, (self.calls, None))
        checks.shape("noise", self.noise, (self.calls,))
        for name in ("times", "a", "b", "noise"):
            checks.finite(name, getattr(self, name))
        checks.finite("opening", torch.tensor(self.opening))
        least = min(self.noise.min().item(), self.opening[1])
        if least < 0:
            raise ValueError(f"noise has the value {least:g}; a standard deviation is not negative")
        if self.b.triu(1).any():
            row, back = self.b.triu(1).nonzero()[0].tolist()
            raise ValueError(
                f"b[{row}, {back}] asks call {row + 1} for an answer {back} calls back, before the first; start with "
                "rows of lower order"
            )

        weights = [[(j, b) for j, b in enumerate(row) if b] for row in self.b.tolist()]
        times = self.times.tolist()
        rows = list(zip(times, [*times[1:], float(self.end)], weights, self.noise.tolist(), strict=True))
        object.__setattr__(self, "rows", rows)

    @property
    def calls(self) -> int:
        """How often the denoiser is called."""
        return len(self.times)

    @property
    def stops(self) -> list[bool]:
        """After which rows x is all that the rows after it need: no later one asks for an answer from before."""
        out, oldest = [], self.calls
        for row in range(self.calls - 1, -1, -1):
            out.append(row < oldest)
            oldest = min(oldest, row - max((j for j, _ in self.rows[row][2]), default=0))
        return out[::-1]


def ancestral(schedule: Schedule, times: Times, variance: str = "posterior") -> Table:
    """x_r drawn from q(x_r|x_t, x̂_0), the posterior of one step with the denoiser's answer in the place of x_0.

        a = α_{t|r} σ_r²/σ_t²,    b = α_r σ²_{t|r}/σ_t²,    n² = σ²_{t|r} σ_r²/σ_t² ("posterior") or σ²_{t|r} ("step")

    The first is right for data in one point, the second for data N(0, I) where α² + σ² = 1. A step to t = 0 adds none.

    Raises: ValueError where times are not falling or outside the schedule, or the variance is neither of the two.
    Source: Ho, Jain & Abbeel (2020), algorithm 2, eqs. 7 and 11, and section 3.2 for the two variances.
    """
    if variance not in ("posterior", "step"):
        raise ValueError(f"variance is {variance!r}; choose 'posterior' (β̃) or 'step' (β)")
    t, r = steps(schedule, times)
    change, (_, sigma_t), (alpha_r, sigma_r) = _step(schedule, t, r)
    lost = -torch.expm1(change)
    drawn = sigma_r if variance == "posterior" else torch.where(sigma_r > 0, sigma_t, 0)
    return Table(
        t, sigma_r / sigma_t * (change / 2).exp(), (alpha_r * lost)[:, None], drawn * lost.sqrt(), r[-1].item()
    )


def ddim(schedule: Schedule, times: Times, eta: float = 0.0) -> Table:
    """x_r = α_r x̂_0 + √(σ_r² − σ_η²) ε̂ + σ_η ε, with ε̂ = (x_t − α_t x̂_0)/σ_t and σ_η² = η² σ²_{t|r} σ_r²/σ_t².

    The variance that is drawn anew is subtracted under the root, so that x_r has the noise level σ_r whatever η is.
    The step to t = 0 gives x̂_0. η = 0 draws nothing; η = 1 is `ancestral` with the posterior variance.

    Raises: ValueError where η is not in [0, 1], or times are not falling or outside the schedule.
    Source: Song, Meng & Ermon (2021), eqs. 12 and 16.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta:g}; choose it from 0 (no noise) to 1 (the posterior's)")
    t, r = steps(schedule, times)
    change, (_, sigma_t), (alpha_r, sigma_r) = _step(schedule, t, r)
    lost = -torch.expm1(change)
    kept = ((1 - eta) * (1 + eta) + eta**2 * change.exp()).sqrt()  # √(1 − η²σ²_{t|r}/σ_t²)
    b = -alpha_r * torch.expm1(change / 2 + torch.log1p(-(eta**2) * lost) / 2)
    return Table(t, sigma_r / sigma_t * kept, b[:, None], eta * sigma_r * lost.sqrt(), r[-1].item())


def euler(schedule: Schedule, times: Times) -> Table:
    """Euler's step of the probability-flow equation dx/dt = f x − ½ g² score in the schedule's own time.

        a = 1 + (r − t)(f + g²/2σ²),    b = −(r − t) α g²/2σ²        with score = (α x̂_0 − x)/σ²

    The step to t = 0, where g²/σ² has no limit, gives x̂_0.

    Raises: ValueError where times are not falling or outside the schedule, or a rate is infinite at one of them.
    Source: Song et al. (2021), eq. 13.
    """
    t, r = steps(schedule, times)
    (alpha, sigma), (f, g2) = schedule(t), finite_rates(schedule, t)
    step, half = r - t, g2 / (2 * sigma.square())
    a = torch.where(r > 0, 1 + step * (f + half), 0)
    b = torch.where(r > 0, -step * alpha * half, 1)
    return Table(t, a, b[:, None], torch.zeros_like(t), r[-1].item())


def steps(schedule: Schedule, times: Times, calls: int = 1) -> tuple[Tensor, Tensor]:
    """The two ends (t, r) of each step of a falling grid, which has at least `calls` steps."""
    given = as_tensor(times).to(device="cpu")
    grid = given.double()
    if grid.ndim != 1 or len(grid) <= calls:
        raise ValueError(
            f"times has shape {tuple(grid.shape)}: too few calls for the method, which needs {calls}; "
            f"give at least {calls + 1} falling times"
        )
    checks.finite("times", grid)
    inside(schedule, given)
    grid = grid.clamp(max=schedule.end)  # a float32 time may lie a rounding beyond
    if not (grid.diff() < 0).all():
        k = int((grid.diff() >= 0).nonzero()[0])
        raise ValueError(
            f"times[{k}] = {grid[k].item():g} is followed by {grid[k + 1].item():g}; a sampler goes from noise to "
            "data, so give falling times: times.flip(0)"
        )
    return grid[:-1], grid[1:]


def finite_rates(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """(f_t, g_t²). Raises ValueError where one is not finite."""
    f, g2 = schedule.rates(t)
    bad = ~(torch.isfinite(f) & torch.isfinite(g2))
    if bad.any():
        raise ValueError(
            f"the rates are infinite at t = {t[bad][0].item():g}, so the flow has no slope there; use ddim, or leave "
            "that time out"
        )
    return f, g2


def _step(schedule: Schedule, t: Tensor, r: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """λ_t − λ_r, and both levels."""
    return schedule.log_snr(t) - schedule.log_snr(r), schedule(t), schedule(r)
