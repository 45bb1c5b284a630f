"""Coefficients and times fitted to the ends of a pilot's paths: Gauss and Newton's method on the sampler's final error.

The sampler is that of `gaussian_exponential` about variances c, with E kept for some calls back and a number for each:

    z_{k+1} = a_k z_k + Σ_j (b_kj + θ_kj ρ_kj w_k) E_{k−j},    w_k = b_k0 of order 1,    ρ_kj = rms E_k / rms E_{k−j}

θ = 0 is the analytic table. The unknowns p are θ and the log SNRs of the times between the first and t = 0. With r_i(p)
the i-th row's final error, J its derivatives by differences, and weights w_i that make squares into lengths,

    (JᵀWJ + μ diag JᵀWJ + ν I_θ) δ = JᵀW r + ν θ,    p ← p − δ,    w_i = 1/(|r_i| + half the median of |r|)

(Levenberg and Marquardt's μ; ν is a ridge towards the analytic table.) A step is kept where it lowers the geometric
mean of |r_i| + 1 % of their first median: what crosses to another mode counts little. A change in row k leaves the
rows before it as they are, and nothing is asked of the denoiser but its answers.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .directions import DirectionTable
from .gaussian_flow import Rows, rows_of
from .pilot import Pilot
from .schedule import as_tensor
from .tables import Table, Times

__all__ = ["fitted"]

RIDGE, APART = 1e-7, 0.02  # ν in units of rᵀWr; the least distance of two times in ℓ


class _Sampler(NamedTuple):
    """The rows at some p, and w_k."""

    rows: Rows
    ones: Tensor


class _Walk(NamedTuple):
    """z before each call, E of each call, and z at the end."""

    z: list[Tensor]
    rest: list[Tensor]
    end: Tensor


def fitted(
    pilot: Pilot,
    times: Times,
    order: int = 2,
    gaussian: bool = True,
    memory: int = 4,
    rounds: int = 20,
) -> Table | DirectionTable:
    """`gaussian_exponential` (or `exponential`, where `gaussian` is False) with what is fitted to the pilot's ends.

    It begins with `times`, which go from the schedule's end to t = 0. `memory` is how many answers each row may use; 0
    leaves the coefficients analytic and fits the times alone. Each round costs about half as many samplings of the
    pilot as there are unknowns.

    Raises: ValueError where times do not end at 0, memory or rounds is negative, or as `gaussian_exponential`.
    """
    if rounds < 0:
        raise ValueError(f"rounds is {rounds}; give 0 (the analytic table) or more")
    fit = _Fit(pilot, times, order, gaussian, memory)
    if not fit.in_order(fit.start):
        raise ValueError(f"two of the times are closer than {2 * APART:g} in log SNR; take times further apart")
    return fit.table(fit.solve(rounds))


class _Fit:
    """The problem: from p, the log SNRs and θ, to the sampler's ends on the pilot."""

    def __init__(self, pilot: Pilot, times: Times, order: int, gaussian: bool, memory: int):
        self.denoiser, self.schedule, self.order, self.gaussian = pilot.denoiser, pilot.schedule, order, gaussian
        self.times = as_tensor(times).detach().to(pilot.times)
        if self.times.ndim != 1 or self.times[-1] != 0 or memory < 0:
            raise ValueError(
                f"times end at {self.times.flatten()[-1].item():g} and memory is {memory}; end at 0, with memory ≥ 0"
            )
        self.like, self.nudge = pilot.x_noise, torch.finfo(pilot.x_noise.dtype).eps ** (3 / 8)
        self.mean = pilot.mean if gaussian else torch.zeros_like(pilot.mean)
        self.basis = pilot.basis if gaussian else None
        self.c = pilot.variances if gaussian else pilot.mean.new_zeros(1)
        self.target = self.forth(pilot.x[-1], 1.0)
        calls = len(self.times) - 1
        self.inner, self.slots = calls - 1, [(k, j) for k in range(calls) for j in range(min(k + 1, memory))]
        self.scales = torch.ones(len(self.slots), dtype=torch.float64)
        self.start = torch.cat([self.schedule.log_snr(self.times[1:-1]), self.scales * 0])
        self.first = self.sampler(self.start)
        if self.slots:
            sizes = [rest.square().mean().sqrt() for rest in self.walk(self.first.rows).rest]
            self.scales = torch.stack([sizes[k] / sizes[k - j].clamp(min=1e-150) for k, j in self.slots])

    def sampler(self, p: Tensor) -> _Sampler:
        inner = self.schedule.time(p[: self.inner]).clamp(max=self.schedule.end)
        grid = torch.cat([self.times[:1], inner, self.times[-1:]])
        rows = rows_of(self.schedule, grid, self.c, self.order, corrected=False)
        ones = rows_of(self.schedule, grid, self.c, 1, corrected=False).b[:, 0]
        if self.slots:
            missing = max(0, 1 + max(j for _, j in self.slots) - rows.b.shape[1])
            rows = rows._replace(b=torch.cat([rows.b, rows.b.new_zeros(len(ones), missing, len(self.c))], 1))
            for (k, j), amount in zip(self.slots, (p[self.inner :] * self.scales).tolist(), strict=True):
                rows.b[k, j] += amount * ones[k]
        return _Sampler(rows, ones)

    def in_order(self, p: Tensor) -> bool:
        """Whether the times fall, and are not too close."""
        ends = [self.schedule.log_snr(self.times[0]).reshape(1), p[: self.inner]]
        return bool((torch.cat(ends).diff() > 2 * APART).all())

    def walk(self, rows: Rows, old: _Walk | None = None, begin: int = 0) -> _Walk:
        """The pilot through the rows, from row `begin` on where those before are as in `old`."""
        z, rest = ([], []) if old is None else (old.z[:begin], old.rest[:begin])
        here = self.forth(self.like, rows.alpha[0]) if old is None else old.z[begin]
        for k in range(begin, len(rows.times)):
            z.append(here)
            answer = self.denoiser(self.back(here, rows.alpha[k]), rows.times[k].item())
            rest.append(self.forth(answer, 1.0) - rows.gain[k] * here)
            here = rows.a[k] * here
            for j in range(min(k + 1, rows.b.shape[1])):
                here = here.addcmul(rest[k - j], rows.b[k, j])
        return _Walk(z, rest, here)

    def forth(self, x: Tensor, alpha: Tensor | float) -> Tensor:
        z = x.flatten(1).to(self.mean) - alpha * self.mean
        return z if self.basis is None else z @ self.basis

    def back(self, z: Tensor, alpha: Tensor) -> Tensor:
        x = (z if self.basis is None else z @ self.basis.mT) + alpha * self.mean
        return x.to(self.like).reshape(self.like.shape)

    @torch.no_grad()
    def solve(self, rounds: int) -> Tensor:
        p, sampler, here = self.start, self.first, self.walk(self.first.rows)
        floor = (here.end - self.target).norm(dim=1).median() / 100 + 1e-12
        value, damp = self.value(here, floor), 1e-2
        on_theta = (torch.arange(len(p)) >= self.inner).double()
        for _ in range(rounds if len(p) else 0):
            gap, before = here.end - self.target, value
            lengths = gap.norm(dim=1)
            root = (lengths + lengths.median() / 2 + 1e-12).rsqrt()[:, None]
            columns = [
                ((self.moved(p, i, sampler, here) - here.end) * (root / self.nudge)).flatten() for i in range(len(p))
            ]
            jacobian, weighted = torch.stack(columns, 1), (gap * root).flatten()
            normal, ridge = jacobian.mT @ jacobian, RIDGE * weighted.square().sum() * on_theta
            slope = jacobian.mT @ weighted + ridge * p
            for _ in range(6):
                trial = p - torch.linalg.solve(normal + torch.diag(damp * normal.diagonal() + ridge + 1e-300), slope)
                if self.in_order(trial):
                    there = self.sampler(trial)
                    walked = self.walk(there.rows)
                    if (reached := self.value(walked, floor)) < value:
                        p, sampler, here, value, damp = trial, there, walked, reached, damp / 5
                        break
                damp *= 4
            if not value < 0.998 * before:
                break
        return p

    def value(self, walked: _Walk, floor: Tensor) -> float:
        """The geometric mean of |r_i| + floor; ∞ where an end is not finite."""
        value = ((walked.end - self.target).norm(dim=1) + floor).log().mean().exp().item()
        return math.inf if math.isnan(value) else value

    def moved(self, p: Tensor, i: int, sampler: _Sampler, here: _Walk) -> Tensor:
        """The end where the i-th unknown is larger by the nudge."""
        if i < self.inner:  # the time of call i + 1, to which row i leads
            there = p.clone()
            there[i] += self.nudge
            return self.walk(self.sampler(there).rows, here, i).end
        k, j = self.slots[i - self.inner]
        b = sampler.rows.b.clone()
        b[k, j] += self.nudge * self.scales[i - self.inner] * sampler.ones[k]
        return self.walk(sampler.rows._replace(b=b), here, k).end

    def table(self, p: Tensor) -> Table | DirectionTable:
        rows = self.sampler(p).rows
        if self.gaussian:
            return DirectionTable(*rows, self.mean, self.basis)
        return Table(rows.times, rows.a[:, 0], rows.b[..., 0], torch.zeros_like(rows.times))
