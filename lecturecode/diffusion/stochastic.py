"""Two stages a step, and noise on the way: Heun's method with Karras's churn, and the reverse equation itself.

Both go from noise to data. Where churn lifts a time t to t̂ > t, its noise has the forward process's law,

    x_t̂ = (α_t̂/α_t) x_t + α_t̂ √(σ̃_t̂² − σ̃_t²) ε,    σ̃ = σ/α,    σ̃_t̂ = (1 + γ) σ̃_t,

and belongs to the row before: that of the step which reached t, or the table's opening.
"""

import math
from dataclasses import dataclass

import torch

from .schedule import Schedule
from .tables import Table, Times, finite_rates, steps

__all__ = ["Churn", "euler_maruyama", "heun"]


@dataclass(frozen=True)
class Churn:
    """γ = min(amount/steps, √2 − 1) in each step that begins with low ≤ σ̃ ≤ high; `scale` multiplies the noise.

    With scale 1 the marginals are kept. σ̃ = σ/α is in the units of x_0.

    Raises: ValueError where amount or scale is negative or not finite, or low > high.
    Source: Karras et al. (2022), algorithm 2: S_churn, S_min, S_max and S_noise.
    """

    amount: float
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("amount", "scale"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value:g}; give a finite number, at least 0")
        if not 0 <= self.low <= self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; choose 0 ≤ low ≤ high, in units of x_0")


def heun(schedule: Schedule, times: Times, churn: Churn | None = None) -> Table:
    """The trapezoid in σ̃ = σ/α, from DDIM's step: two calls a step, at t and at r.

        x′ = (σ_r/σ_t) x + α_r (1 − e^{−h}) D_0,    x_r = x′ + ½ α_r (e^h − 1)(D_1 − D_0),    h = log σ̃_t/σ̃_r

    The second is y + ½ (σ̃_r − σ̃_t)[(y − D_0)/σ̃_t + (y′ − D_1)/σ̃_r] for y = x/α, where y is taken from y′. The step to
    t = 0, and one from α = 0, is DDIM's: one call. With `churn` each step begins at the lifted time.

    Raises: ValueError where times are not falling or outside the schedule, also those that churn lifts.
    Source: Karras et al. (2022), algorithms 1 and 2 with σ(t) = t, in x/α for other schedules.
    """
    t, r = steps(schedule, times)
    lift = torch.zeros_like(t)
    log_snr, end = schedule.log_snr(t), schedule.log_snr(r)
    if churn is not None:
        relative = (-log_snr / 2).exp()
        churned = (churn.low <= relative) & (relative <= churn.high) & torch.isfinite(relative)
        lift[churned] = min(churn.amount / len(t), math.sqrt(2) - 1)
    lifted = log_snr - 2 * lift.log1p()
    too_far = (lift > 0) & (lifted < schedule.log_snr(schedule.end) - 1e-12)
    if too_far.any():
        raise ValueError(
            f"churn lifts the time {t[too_far][0].item():g} beyond the schedule's end, {schedule.end:g}; begin with an "
            "earlier time, give the churn a lower high, or the schedule a later end"
        )
    begin = torch.where(lift > 0, schedule.time(lifted).clamp(max=schedule.end), t)
    (alpha_t, sigma_t), (alpha_r, sigma_r) = schedule(begin), schedule(r)
    h = (end - lifted) / 2
    across = alpha_t / schedule(t)[0]
    noise = alpha_t * (-log_snr / 2).exp() * (lift * (2 + lift)).sqrt() * (churn.scale if churn else 0)
    across, noise = (torch.where(lift > 0, kick, rest).tolist() for kick, rest in ((across, 1.0), (noise, 0.0)))

    rows = []  # time, a, b_0, b_1, n
    ahead, gain = (sigma_r / sigma_t).tolist(), (-alpha_r * torch.expm1(-h)).tolist()
    half = (alpha_r * torch.expm1(h) / 2).tolist()
    for k, (start, reached) in enumerate(zip(begin.tolist(), r.tolist(), strict=True)):
        rows.append([start, ahead[k], gain[k], 0.0, 0.0])
        if math.isfinite(half[k]):
            rows.append([reached, 1.0, half[k], -half[k], 0.0])
        if k + 1 < len(t):
            rows[-1] = [rows[-1][0], *(across[k + 1] * part for part in rows[-1][1:4]), noise[k + 1]]
    columns = torch.tensor(rows, dtype=torch.float64)
    return Table(
        columns[:, 0], columns[:, 1], columns[:, 2:4], columns[:, 4], r[-1].item(), opening=(across[0], noise[0])
    )


def euler_maruyama(schedule: Schedule, times: Times) -> Table:
    """Euler's step of the reverse equation dx = (f x − g² score) dt + g dw, from t down to r.

        a = 1 + (r − t)(f + g²/σ²),    b = −(r − t) α g²/σ²,    n² = (t − r) g²        with score = (α x̂_0 − x)/σ²

    Its variances have an error of first order in the steps. The step to t = 0 gives x̂_0 and adds no noise.

    Raises: ValueError where times are not falling or outside the schedule, or a rate is infinite at one of them.
    Source: Anderson (1982); Song et al. (2021), eq. 6.
    """
    t, r = steps(schedule, times)
    (alpha, sigma), (f, g2) = schedule(t), finite_rates(schedule, t)
    step, pull = r - t, g2 / sigma.square()
    a = torch.where(r > 0, 1 + step * (f + pull), 0)
    b = torch.where(r > 0, -step * alpha * pull, 1)
    n = torch.where(r > 0, (-step * g2).sqrt(), 0)
    return Table(t, a, b[:, None], n, r[-1].item())
