"""Denoisers: from a noised point x_t and its time to x̂_0 = E[x_0 | x_t], whatever the network was asked for.

    L(θ) = E_{x_0, t, ε} [w(t) |x_0 − x̂_0(α_t x_0 + σ_t ε, t)|²]

is smallest at the posterior mean, at each t by itself, whatever w > 0 is. All that follows, bounds, guidance and
samplers, takes a denoiser and never a network: something with a `schedule` that maps (x_t, t) to x̂_0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .. import checks
from ..rng import normal, uniform
from .prediction import VELOCITY, Prediction
from .process import at, levels
from .schedule import Schedule, Time, terminal_snr
from .weighting import UniformTimes, Weighting

__all__ = ["Denoise", "Denoiser", "Given", "Guided"]

REACH = 20.0  # |λ| beyond which a network is told no difference: σ/α of 5e-5 and 2e4


@runtime_checkable
class Denoise(Protocol):
    """(x_t, t) ↦ x̂_0 for one time or one for each row, with the schedule it is made for."""

    @property
    def schedule(self) -> Schedule: ...

    def __call__(self, xt: Tensor, t: Time) -> Tensor: ...


class Denoiser(nn.Module):
    """A network asked for `predicts`, as a denoiser. The network is called as net(x, level) or net(x, level, labels).

    x is x_t times the prediction's scale; level is λ_t = log SNR, one for each row, held within ±20: a number that
    differs between any two noise levels, whatever the schedule's clock. `level(schedule, t)` gives another number for
    each t, best within ±20 too: `lambda schedule, t: 20 - 40 * t` suits `Straight()`. A network with classes takes
    labels 0 … classes − 1, and `classes` itself for "no label"; `drop` is the share that `loss` replaces by it.

    Raises: ValueError where predicts cannot answer at the schedule's end (noise or score at zero terminal SNR).
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        predicts: Prediction = VELOCITY,
        weighting: Weighting | None = None,
        times: Callable[..., Tensor] | None = None,
        classes: int = 0,
        drop: float = 0.1,
        level: Callable[[Schedule, Tensor], Tensor] | None = None,
    ):
        super().__init__()
        if not predicts.answers_pure_noise and terminal_snr(schedule) == 0:
            raise ValueError(
                f"a prediction of the {predicts.name} says nothing about x_0 where the SNR is zero, and this schedule "
                "ends there; predict CLEAN or VELOCITY"
            )
        if classes < 0 or not 0 <= drop < 1:
            raise ValueError(f"classes is {classes} and drop {drop:g}; give classes ≥ 0 and drop from 0 to below 1")
        self.net, self.schedule, self.predicts = net, schedule, predicts
        self.weighting, self.times = weighting, times or UniformTimes()
        self.classes, self.drop, self.level = classes, drop, level or _log_snr

    def forward(self, xt: Float[Tensor, "batch *d"], t: Time, labels: Tensor | None = None) -> Tensor:
        """x̂_0 for each row. Without labels a network with classes is asked for "no label"."""
        alpha, sigma = levels(self.schedule, t, xt)
        return self.predicts.clean(self._answer(xt, t, alpha, sigma, labels), xt, alpha, sigma)

    def loss(self, batch: Tensor | tuple[Tensor, Tensor] | list[Tensor], rng: torch.Generator) -> Float[Tensor, ""]:
        """Mean over the batch and the entries of w |x_0 − x̂_0|², or of |y − ŷ|² where no weighting was given.

        `batch` is x_0 or (x_0, labels); t, ε and the dropped labels are drawn from `rng`.

        Raises: ValueError where x_0 is no batch of floats, labels are not one a row, or the network has no classes.
        """
        x0, labels = batch if isinstance(batch, tuple | list) else (batch, None)
        if x0.ndim < 2 or not x0.is_floating_point():
            raise ValueError(f"x0 has shape {tuple(x0.shape)} and is {x0.dtype}; give floats, one row an example")
        t = self.times(self.schedule, len(x0), rng, x0)
        eps = normal(tuple(x0.shape), rng, x0)
        if labels is not None:
            if labels.shape != x0.shape[:1]:
                raise ValueError(f"labels has shape {tuple(labels.shape)} for {len(x0)} examples; give one for each")
            dropped = uniform((len(x0),), rng, x0) < self.drop
            labels = torch.where(dropped, self.classes, labels)
        alpha, sigma = levels(self.schedule, t, x0)
        answer = self._answer(alpha * x0 + sigma * eps, t, alpha, sigma, labels)
        error = (self.predicts.target(x0, eps, alpha, sigma) - answer).square()
        if self.weighting is None:
            return error.mean()
        return (self.weighting(alpha, sigma) / self.predicts.error(alpha, sigma).square() * error).mean()

    def _answer(self, xt: Tensor, t: Time, alpha: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        t = at(t, xt)
        level = self.level(self.schedule, t)
        if level.shape != t.shape:
            raise ValueError(f"level gives shape {tuple(level.shape)} for t of {tuple(t.shape)}; give one for each t")
        level = level.to(xt).expand(len(xt))
        x = xt * self.predicts.scale(alpha, sigma)
        if not self.classes:
            if labels is not None:
                raise ValueError("labels were given to a denoiser without classes; make it with classes=…")
            answer = self.net(x, level)
        else:
            none = torch.full((len(xt),), self.classes, device=xt.device)
            answer = self.net(x, level, none if labels is None else labels)
        if answer.shape != xt.shape:
            raise ValueError(
                f"the network gives shape {tuple(answer.shape)} for x of {tuple(xt.shape)}; make them equal"
            )
        return answer


def _log_snr(schedule: Schedule, t: Tensor) -> Tensor:
    return schedule.log_snr(t).clamp(-REACH, REACH)


@dataclass(frozen=True)
class Given:
    """The denoiser of p(x | label): `denoiser` with its labels filled in, one for all rows or one for each."""

    denoiser: Denoiser
    labels: int | Int[Tensor, " batch"]
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", self.denoiser.schedule)
        known = torch.as_tensor(self.labels)
        if known.ndim > 1 or known.is_floating_point():
            raise ValueError(
                f"labels has shape {tuple(known.shape)} and is {known.dtype}; give a whole number, or one for each row"
            )
        bad = ~((known >= 0) & (known < self.denoiser.classes))
        if checks.is_free(known) and bad.any():
            raise ValueError(
                f"the label {known[bad].flatten()[0].item()} is none of the {self.denoiser.classes} classes of this "
                "denoiser; labels go from 0 up"
            )

    def __call__(self, xt: Tensor, t: Time) -> Tensor:
        labels = torch.as_tensor(self.labels, device=xt.device)
        if labels.ndim and len(labels) != len(xt):
            raise ValueError(f"{len(labels)} labels for {len(xt)} rows of x; give one label, or one for each row")
        return self.denoiser(xt, t, labels.expand(len(xt)))


@dataclass(frozen=True)
class Guided:
    """Classifier-free guidance: x̂_0 = u + scale (c − u) of a conditional answer c and an unconditional one u.

    scale 0 is unconditional, 1 conditional, and beyond 1 it extrapolates: the score of p_t(x) p_t(label|x)^scale at
    each t, which are the marginals of no noise process for scale ∉ {0, 1}. Each call costs two of the denoisers'.

    Raises: ValueError where the two have different schedules, or scale is not finite.
    Source: Ho & Salimans (2022), eq. 6, with w = scale − 1.
    """

    conditional: Denoise
    unconditional: Denoise
    scale: float

    def __post_init__(self) -> None:
        if self.conditional.schedule != self.unconditional.schedule:
            raise ValueError("the two denoisers have different schedules; make both with one")
        checks.finite("scale", torch.as_tensor(self.scale))

    @property
    def schedule(self) -> Schedule:
        """The schedule of both."""
        return self.conditional.schedule

    def __call__(self, xt: Tensor, t: Time) -> Tensor:
        return torch.lerp(self.unconditional(xt, t), self.conditional(xt, t), self.scale)
