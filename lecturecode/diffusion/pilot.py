"""A pilot: paths followed with small steps, on which grids and coefficients are chosen.

The paths stop at candidate times τ_0 > τ_1 > … > τ_M = 0, equally spaced in log SNR, and keep x and x̂_0 there.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .. import checks
from .denoiser import Denoise
from .exact import eigen
from .likelihood import follow
from .multistep import exponential
from .sampler import walk
from .schedule import Schedule, as_tensor

__all__ = ["Pilot"]

FLOOR, FINE = -12.0, 8  # the first finite candidate where the schedule begins with α = 0; steps from one to the next


@dataclass(frozen=True, eq=False)
class Pilot:
    """Paths through the candidate `times`: x (times, batch, d), x̂_0 (times − 1, batch, d), and the data's directions.

    `mean`, `variances` and `basis` are those of the data. All is float64 on the CPU but for what the denoiser is given.
    """

    denoiser: Denoise
    x_noise: Tensor
    times: Float64[Tensor, " times"]
    x: Float64[Tensor, "times batch d"]
    answers: Float64[Tensor, "calls batch d"]
    mean: Float64[Tensor, " d"]
    variances: Float64[Tensor, " d"]
    basis: Float64[Tensor, "d d"]

    @classmethod
    def run(
        cls,
        denoiser: Denoise,
        x_noise: Float[Tensor, "batch *d"],
        mean: Tensor | None = None,
        covariance: Tensor | None = None,
        candidates: int = 48,
        high: float = 14.0,
    ) -> "Pilot":
        """The paths from x_noise at the schedule's end, by `exponential` of order 3 with eight steps to a candidate.

        `high` is the last candidate's log SNR before t = 0; from there `follow` leads to t = 0. Without mean and
        covariance they are read from the first answers, which are those of a Gaussian where the noise drowns the data,
        or where they are too few from the paths' ends; with both, the covariance is (d, d), a diagonal or a variance.

        Raises: ValueError where x_noise has fewer than two rows, only one of mean and covariance is given, candidates
        are fewer than 4, or high is not above the schedule's first log SNR.
        """
        if (mean is None) != (covariance is None):
            raise ValueError("give both mean and covariance of the data, or neither")
        if x_noise.ndim < 2 or len(x_noise) < 2 or candidates < 4:
            raise ValueError(
                f"x_noise has shape {tuple(x_noise.shape)} and candidates is {candidates}; give two or more rows of "
                "noise and four or more candidates"
            )
        schedule = denoiser.schedule
        first = schedule.log_snr(schedule.end).item()
        low = max(first, FLOOR)
        if not low < high < math.inf:
            raise ValueError(f"high is {high:g}; give a finite log SNR above {low:g}, where the paths begin")
        inner = schedule.time(torch.linspace(low, high, FINE * (candidates - 1) + 1, dtype=torch.float64))
        inner = inner.clamp(max=schedule.end)
        if first < low:  # no log SNR at the end: one step from there to the first that is finite
            fine = torch.cat([inner.new_tensor([schedule.end]), inner, inner.new_zeros(1)])
            keep = [0, *range(1, len(inner) + 1, FINE)]
        else:
            inner[0] = schedule.end
            fine = torch.cat([inner, inner.new_zeros(1)])
            keep = list(range(0, len(inner), FINE))
        kept, here, x, answers = set(keep), x_noise, [x_noise.flatten(1)], []
        for row, (_, stop, x0_hat) in enumerate(walk(denoiser, exponential(schedule, fine, 3), x_noise)):
            if row in kept:
                answers.append(x0_hat.flatten(1).clone())
            if row + 1 in kept:
                x.append(stop.flatten(1))
                here = stop
        tolerance = 1e-4 * torch.finfo(x_noise.dtype).eps ** 0.25
        x.append(follow(denoiser, here, fine[-2].item(), 0.0, tolerance).flatten(1))
        paths = torch.stack(x).to(fine)
        if mean is None or covariance is None:
            mean, covariance = _gaussian(paths, torch.stack(answers).to(fine), schedule, fine[keep])
        mean = mean.detach().to(fine).flatten()
        checks.shape("mean", mean, (paths.shape[2],))
        variances, basis = eigen("covariance", as_tensor(covariance).detach().to(fine), len(mean))
        times = torch.cat([fine[keep], fine[-1:]])
        return cls(denoiser, x_noise, times, paths, torch.stack(answers).to(fine), mean, variances, basis)

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def rows(self, which: slice) -> "Pilot":
        """The same with some of the paths."""
        return replace(
            self,
            x_noise=self.x_noise[which],
            x=self.x[:, which].contiguous(),
            answers=self.answers[:, which].contiguous(),
        )


def _gaussian(paths: Tensor, answers: Tensor, schedule: Schedule, times: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the data: from the answers where α > 0 first, or, with few paths, from their ends.

    x̂_0 = m + S (x − α m) with S = α C (α² C + σ²)^{−1} there, so that C = (σ²/α) S (1 − α S)^{−1}.
    """
    mean, covariance = paths[-1].mean(0), paths[-1].mT.cov()
    count, d = paths.shape[1:]
    first = int((schedule(times)[0] > 0).nonzero()[0])
    alpha, sigma = (level.item() for level in schedule(times[first]))
    if count < 3 * d or sigma**2 < 10 * alpha**2 * covariance.trace():
        return mean, covariance
    ones = paths.new_full((count, 1), (alpha**2 * covariance.trace().item() / d + sigma**2) ** 0.5)
    # by QR: the default driver pivots by an array it does not set, and its last digits vary
    line = torch.linalg.lstsq(torch.cat([paths[first], ones], 1), answers[first], driver="gels").solution
    slopes, basis = torch.linalg.eigh((line[:-1] + line[:-1].mT) / 2)
    left = 1 - alpha * slopes
    variances = (sigma**2 / alpha * slopes / left).clamp(min=1e-6 * covariance.trace().item() / d)
    return basis @ ((basis.mT @ line[-1]) * ones[0] / left), (basis * variances) @ basis.mT
