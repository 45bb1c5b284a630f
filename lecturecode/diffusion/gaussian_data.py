"""Data N(m, C), for which every term of both bounds has a closed form: the exact member of the family of bounds.

With c over the eigenvalues of C, s = SNR_t, and averages over the data and the noise:

    E|x_0 − x̂_0(x_t)|² = Σ c/(1 + cs),     ½∫ Σ c/(1 + cs) ds = ½ Σ log(1 + cs) = I(x_0; x_t)
    −E log p(x_0) = ½ Σ log 2πe c

The best reverse step q(x_r|x_t) has the variance σ²_{t|r} (α_r²c + σ_r²)/(α_t²c + σ_t²) along each eigenvector. What a
bound loses is a sum of divergences KL(best ‖ model) = ½ Σ [R − 1 − log R], R the ratio of the two variances:

    decoder  R = c/(1 + cs_1) / variance          end  R = (α_T²c + σ_T²)/(α_T² + σ_T²), and ½ u|m|² for the mean
    step     R = (1 + cs_r)/(1 + cs_t) for the posterior variance, and (α_r²c + σ_r²)/(α_t²c + σ_t²) for σ²_{t|r}

So the posterior variance is best for c → 0, and σ²_{t|r} for c = 1 where α² + σ² = 1.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .. import checks
from .bound import DiffusionElbo
from .schedule import Schedule, Time, inside
from .terms import end_weights, rising_grid, step_weights

__all__ = ["GaussianData", "GaussianGap"]


@dataclass(frozen=True)
class GaussianGap:
    """E log p(x_0) − E[ELBO] ≥ 0 in nats: what the decoder, each step and the noise end lose."""

    decoder: Float64[Tensor, ""]
    steps: Float64[Tensor, " steps"]
    end: Float64[Tensor, ""]

    @property
    def value(self) -> Float64[Tensor, ""]:
        """The sum of all."""
        return self.decoder + self.steps.sum() + self.end


@dataclass(frozen=True, eq=False)
class GaussianData:
    """N(mean, covariance), of shapes (n,) and (n, n), with its exact denoiser's bounds, averaged over data and noise.

    `decoder` is the variance of p(x_0|x_{t_1}) = N(x̂_0, decoder · I); None stands for the exact conditional.
    All is float64.

    Raises: ValueError where the shapes do not fit, or the covariance is not symmetric and positive definite.
    """

    mean: Float[Tensor, " n"]
    covariance: Tensor
    spectrum: Float64[Tensor, " n"] = field(init=False)

    def __post_init__(self) -> None:
        checks.shape("mean", self.mean, (None,))
        checks.shape("covariance", self.covariance, (len(self.mean), len(self.mean)))
        checks.finite("mean", self.mean)
        checks.finite("covariance", self.covariance)
        matrix = self.covariance.double()
        if not torch.allclose(matrix, matrix.mT, rtol=1e-6, atol=1e-6 * float(matrix.abs().max())):
            raise ValueError("covariance is not symmetric; pass (C + C.mT) / 2 if rounding made it so")
        spectrum = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)
        if not spectrum[0] > 0:
            raise ValueError(f"covariance has the eigenvalue {spectrum[0]:g}; without variance there is no density")
        object.__setattr__(self, "spectrum", spectrum)

    def entropy(self) -> Float64[Tensor, ""]:
        """−E log p(x_0) = ½ Σ log 2πe c."""
        return self._half_sum((2 * math.pi * math.e * self.spectrum).log())

    def error(self, schedule: Schedule, t: Time) -> Float64[Tensor, "*times"]:
        """E|x_0 − x̂_0(x_t, t)|² = Σ cσ²/(α²c + σ²), for one time or a row of them."""
        alpha, sigma = (level.double()[..., None].square() for level in schedule(inside(schedule, t)))
        return (self.spectrum * sigma / (alpha * self.spectrum + sigma)).sum(-1)

    def elbo(
        self, schedule: Schedule, times: Tensor, variance: str = "posterior", decoder: float | None = None
    ) -> DiffusionElbo:
        """E of `elbo` on the grid `times`, term by term. Raises ValueError as `elbo`."""
        times = rising_grid(schedule, times)
        weights, excess = step_weights(schedule, times, variance)
        steps = weights * self.error(schedule, times[2:]) + len(self.mean) * excess
        return DiffusionElbo(self._reconstruction(schedule, times[1], decoder), steps, self._end(schedule))

    def continuous_elbo(self, schedule: Schedule, start: float | Tensor, decoder: float | None = None) -> DiffusionElbo:
        """E of `continuous_elbo`: one row of steps, ½ Σ log[(1 + c SNR_start)/(1 + c SNR_end)].

        Raises: ValueError where start is not inside (0, end).
        """
        if not 0 < float(start) < schedule.end:
            raise ValueError(f"start is {float(start):g}; choose a time between 0 and {schedule.end:g}, both excluded")
        high, low = (schedule.log_snr(t).exp() for t in (start, schedule.end))
        integral = self._half_sum(torch.log1p(self.spectrum * (high - low) / (1 + self.spectrum * low)))
        return DiffusionElbo(self._reconstruction(schedule, start, decoder), integral[None], self._end(schedule))

    def gap(
        self, schedule: Schedule, times: Tensor, variance: str = "posterior", decoder: float | None = None
    ) -> GaussianGap:
        """E log p(x_0) − E[ELBO] on the grid `times`, as a sum of divergences. Raises ValueError as `elbo`."""
        times = rising_grid(schedule, times)
        step_weights(schedule, times, variance)  # its door
        snr, c = schedule.log_snr(times[1:]).exp()[:, None], self.spectrum
        if variance == "posterior":
            ratio = c * (snr[:-1] - snr[1:]) / (1 + c * snr[1:])
        else:
            alpha, sigma = (level[1:, None].square() for level in schedule(times))
            total = alpha * c + sigma
            ratio = (total[:-1] - total[1:]) / total[1:]
        a, _ = end_weights(schedule)
        end = self._excess(2 * a * (c - 1)) + a * self.mean.double().square().sum()
        exact = self._conditional(schedule, times[1])
        if decoder is not None:
            checks.positive("decoder", decoder)
        lost = end.new_zeros(()) if decoder is None else self._excess(exact / decoder - 1)
        return GaussianGap(lost, self._excess(ratio), end)

    def _reconstruction(self, schedule: Schedule, t: Time, decoder: float | None) -> Tensor:
        exact = self._conditional(schedule, t)
        if decoder is None:
            return -self._half_sum((2 * math.pi * math.e * exact).log())
        checks.positive("decoder", decoder)
        return -self._half_sum(math.log(2 * math.pi * decoder) + exact / decoder)

    def _conditional(self, schedule: Schedule, t: Time) -> Float64[Tensor, " n"]:
        """The variances of q(x_0|x_t) along the eigenvectors."""
        return self.spectrum / (1 + self.spectrum * schedule.log_snr(t).exp())

    def _end(self, schedule: Schedule) -> Tensor:
        a, b = end_weights(schedule)
        return a * (self.mean.double().square().sum() + self.spectrum.sum()) + b * len(self.mean)

    def _excess(self, beyond: Tensor) -> Tensor:
        """½ Σ [R − 1 − log R] with R = 1 + beyond, over the eigenvectors."""
        return self._half_sum(beyond - torch.log1p(beyond))

    @staticmethod
    def _half_sum(terms: Tensor) -> Tensor:
        return terms.sum(-1) / 2
