"""The bound of a diffusion model, term by term, for any denoiser, in nats per example.

On a grid 0 = t_0 < t_1 < … < t_N = end, with r = t_{k−1} and t = t_k:

    −log p(x_0) ≤ L_0 + Σ_{k=2}^N L_k + L_T
    L_T = KL(q(x_T|x_0) ‖ N(0, (α_T² + σ_T²) I)) = ½ n [log(1 + SNR_T) − u] + ½ u |x_0|²,   u = SNR_T/(1 + SNR_T)
    L_k = E KL(q(x_r|x_t,x_0) ‖ q(x_r|x_t,x̂_0)) = ½ (SNR_r − SNR_t) E|x_0 − x̂_0(x_t, t)|²
    L_0 = −E log p(x_0|x̂_0(x_{t_1}, t_1))

with SNR = α²/σ². The model's step may also have the variance σ²_{t|r} of the noising step, "step" in place of
"posterior", and then L_k = ½ n (ρ − 1 − log ρ) + ½ ρ (SNR_r − SNR_t) E|x_0 − x̂_0|² with ρ = σ_r²/σ_t². With ever more
steps the sum becomes ½∫ E|x_0 − x̂_0|² d SNR, in which no schedule is left but by its ends. (Kingma et al. 2021.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .. import checks
from ..rng import normal, uniform
from .denoiser import Denoise
from .process import forward
from .schedule import Time, as_tensor
from .terms import end_weights, rising_grid, step_weights

__all__ = ["DiffusionElbo", "continuous_elbo", "elbo"]


@dataclass(frozen=True)
class DiffusionElbo:
    """The parts of the bound for each example, in nats: log p(x_0|x_{t_1}), the divergences of the steps, L_T.

    Each row of `steps` is a term, or a draw of one that is weighted to stand for its share of their sum.
    """

    reconstruction: Float[Tensor, "*batch"]
    steps: Float[Tensor, "terms *batch"]
    end: Float[Tensor, "*batch"]

    @property
    def value(self) -> Float[Tensor, "*batch"]:
        """reconstruction − Σ steps − end ≤ log p(x_0) in expectation."""
        return self.reconstruction - self.steps.sum(0) - self.end


def elbo(
    denoiser: Denoise,
    x0: Float[Tensor, "batch *d"],
    times: Float[Tensor, " times"],
    likelihood: Callable[[Tensor, Tensor], Tensor],
    rng: torch.Generator,
    variance: str = "posterior",
    draws: int | None = None,
) -> DiffusionElbo:
    """The bound on the grid `times`, from 0 up to the schedule's end, with one x_t for each term: N denoiser calls.

    likelihood(x0_hat, x0) gives log p(x_0|x_{t_1}) for each row. With `draws`, as many steps are drawn for each example
    and stand for all N − 1: the same expectation from draws + 1 calls, the steps spread evenly over batch and draws.

    Raises: ValueError where the grid, x_0, variance or draws is wrong, or an answer has another shape or is not finite.
    Source: Ho, Jain & Abbeel (2020), eq. 5, and section 3.2 for the two variances.
    """
    times = rising_grid(denoiser.schedule, times)
    weights, excess = step_weights(denoiser.schedule, times, variance)
    run = _Run(denoiser, x0, rng, draws)
    first = run.answer(times[1])
    chosen, share = torch.arange(len(weights)), 1.0
    if draws is not None and len(weights):
        chosen = (run.spread(draws) * len(weights)).long().clamp(max=len(weights) - 1)
        share = len(weights) / draws
    rows = []
    for k in chosen:
        error = run.error(run.answer(times[k + 2]))
        rows.append((share * weights[k]).to(x0) * error + (share * run.n * excess[k]).to(x0))
    return run.finish(first, rows, likelihood)


def continuous_elbo(
    denoiser: Denoise,
    x0: Float[Tensor, "batch *d"],
    start: float | Tensor,
    likelihood: Callable[[Tensor, Tensor], Tensor],
    rng: torch.Generator,
    variable: str = "log_snr",
    draws: int = 1,
) -> DiffusionElbo:
    """log p(x_0|x_start) − ½∫ |x_0 − x̂_0|² d SNR − L_T, the integral from SNR(end) to SNR(start), by `draws` draws.

    The variable is drawn uniformly between those two ends, spread evenly over batch and draws; each draw then weighs

        "log_snr"   ½ (λ_start − λ_end) SNR                     "t"   ½ (end − start) SNR g²/σ²

    with −dλ/dt = g²/σ²: two importance densities of one integral. Below `start` the likelihood takes over.

    Raises: ValueError as `elbo`, and where start is not inside (0, end) or the SNR at the end is zero.
    Source: Kingma, Salimans, Poole & Ho (2021), section 5.
    """
    schedule, start = denoiser.schedule, as_tensor(start)
    if start.ndim or not 0 < start < schedule.end:
        raise ValueError(f"start is {start.tolist()}; choose one time between 0 and {schedule.end:g}, both excluded")
    if variable not in ("log_snr", "t"):
        raise ValueError(f"variable is {variable!r}; integrate over 'log_snr' or 't'")
    high, low = schedule.log_snr(start), schedule.log_snr(schedule.end)
    if low.isinf():
        raise ValueError("the SNR at the schedule's end is zero, and λ goes to −∞; use elbo on a grid of times")
    run = _Run(denoiser, x0, rng, draws)
    first, rows = run.answer(start), []
    for u in run.spread(draws):
        if variable == "log_snr":
            log_snr = low + u * (high - low)
            t = schedule.time(log_snr).clamp(max=schedule.end)
            weight = (high - low) * log_snr.exp()
        else:
            t = start + u * (schedule.end - start)
            weight = (schedule.end - start) * schedule.log_snr(t).exp() * schedule.rates(t)[1] / schedule(t)[1].square()
        rows.append((weight / (2 * draws)).to(x0) * run.error(run.answer(t)))
    return run.finish(first, rows, likelihood)


class _Run:
    """One pass over a batch: makes x_t, asks the denoiser, remembers each squared error and its time."""

    def __init__(self, denoiser: Denoise, x0: Tensor, rng: torch.Generator, draws: int | None):
        if x0.ndim < 2 or 0 in x0.shape or not x0.is_floating_point():
            raise ValueError(f"x0 has shape {tuple(x0.shape)} and is {x0.dtype}; give floats, one row an example")
        if checks.is_free(x0):
            checks.finite("x0", x0)
        if draws is not None and draws < 1:
            raise ValueError(f"draws is {draws}; ask for at least one, or for None: each step once")
        self.denoiser, self.x0, self.rng = denoiser, x0, rng
        self.n = x0[0].numel()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def answer(self, t: Time) -> Tensor:
        eps = normal(tuple(self.x0.shape), self.rng, self.x0)
        answer = self.denoiser(forward(self.denoiser.schedule, self.x0, eps, t), t)
        if answer.shape != self.x0.shape:
            raise ValueError(
                f"the denoiser gives shape {tuple(answer.shape)} for x of {tuple(self.x0.shape)}; make them equal"
            )
        self.seen.append((as_tensor(t).expand(len(self.x0)), answer.detach().flatten(1).isfinite().all(1)))
        return answer

    def error(self, answer: Tensor) -> Float[Tensor, " batch"]:
        return (self.x0 - answer).square().flatten(1).sum(1)

    def spread(self, draws: int) -> Float64[Tensor, "draws batch"]:
        """Uniform numbers, evenly spread over all draws of all rows; each alone is uniform on [0, 1)."""
        shift = uniform((1,), self.rng, self.x0).to(device="cpu", dtype=torch.float64)
        row = torch.arange(len(self.x0), dtype=torch.float64) / len(self.x0)
        return ((shift + row + torch.arange(draws, dtype=torch.float64)[:, None]) / draws) % 1

    def finish(
        self, first: Tensor, rows: list[Tensor], likelihood: Callable[[Tensor, Tensor], Tensor]
    ) -> DiffusionElbo:
        """All finite? Read once, after the last call; then L_0 and L_T."""
        good = torch.stack([fine for _, fine in self.seen])
        if not good.all():
            call, row = (~good).nonzero()[0].tolist()
            raise ValueError(
                f"the denoiser's answer at t = {self.seen[call][0][row]:g} (call {call + 1} of {len(good)}, row {row}) "
                "is not finite; look at the network there"
            )
        log_prob = likelihood(first, self.x0)
        if log_prob.shape != self.x0.shape[:1]:
            raise ValueError(
                f"likelihood gives shape {tuple(log_prob.shape)} for {len(self.x0)} examples; sum log p over all but "
                "the first axis"
            )
        a, b = (float(w) for w in end_weights(self.denoiser.schedule))
        end = a * self.x0.square().flatten(1).sum(1) + b * self.n
        return DiffusionElbo(log_prob, torch.stack(rows) if rows else end.new_zeros(0, len(end)), end)
