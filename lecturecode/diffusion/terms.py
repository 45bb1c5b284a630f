"""The weights of the bound's terms, in float64: what multiplies |x_0 − x̂_0|², |x_0|², and the dimension n.

    L_k = a_k |x_0 − x̂_0|² + n b_k,    L_T = a |x_0|² + n b

with r = t_{k−1}, t = t_k, SNR_r − SNR_t = SNR_r (1 − e^{λ_t−λ_r}), ρ = σ_r²/σ_t² and u = SNR_T/(1 + SNR_T):

    "posterior"   a_k = ½ (SNR_r − SNR_t),      b_k = 0
    "step"        a_k = ½ ρ (SNR_r − SNR_t),    b_k = ½ (ρ − 1 − log ρ)
    end           a = ½ u,                      b = ½ [log(1 + SNR_T) − u]
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import softplus

from .schedule import Schedule

__all__ = ["end_weights", "rising_grid", "step_weights"]


def step_weights(
    schedule: Schedule, times: Float[Tensor, " times"], variance: str = "posterior"
) -> tuple[Float64[Tensor, " steps"], Float64[Tensor, " steps"]]:
    """(a_k, b_k) for k = 2 … N on a grid t_0 … t_N that rises. The SNRs' difference is taken without cancelling.

    Raises: ValueError where variance is neither "posterior" nor "step".
    """
    if variance not in ("posterior", "step"):
        raise ValueError(
            f"variance is {variance!r}; the model's step has the 'posterior' variance or that of the 'step'"
        )
    r, t = times[1:-1], times[2:]
    start = schedule.log_snr(r)
    weight = -0.5 * start.exp() * torch.expm1(schedule.log_snr(t) - start)
    if variance == "posterior":
        return weight, torch.zeros_like(weight)
    ratio = (schedule(r)[1] / schedule(t)[1]).square()
    return ratio * weight, 0.5 * (ratio - 1 - ratio.log())


def end_weights(schedule: Schedule) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """(a, b) with L_T = a |x_0|² + n b."""
    log_snr = schedule.log_snr(schedule.end)
    return log_snr.sigmoid() / 2, (softplus(log_snr) - log_snr.sigmoid()) / 2


def rising_grid(schedule: Schedule, times: Tensor) -> Float64[Tensor, " times"]:
    """The grid in float64 on the CPU. Raises ValueError where it does not rise from 0 to the schedule's end."""
    times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times has shape {tuple(times.shape)}; give a row of at least two: 0 and {schedule.end:g}")
    if not (times.diff() > 0).all():
        k = int((~(times.diff() > 0)).nonzero()[0])
        raise ValueError(
            f"times[{k + 1}] is {times[k + 1]:g} after {times[k]:g}; the bound's grid rises from the data: "
            "turn a sampler's round with times.flip(0)"
        )
    if times[0] != 0 or abs(times[-1] - schedule.end) > 1e-6 * schedule.end:
        raise ValueError(
            f"times goes from {times[0]:g} to {times[-1]:g}; the bound needs all of the schedule, 0 to {schedule.end:g}"
        )
    return torch.cat([times[:-1], times.new_tensor([schedule.end])])
