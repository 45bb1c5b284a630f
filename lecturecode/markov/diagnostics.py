"""How good is an average over a chain? Its autocorrelations, its effective number of draws, its error bar.

    Var(mean) ≈ σ² τ/N,   τ = 1 + 2 Σ_{t≥1} ρ_t,   ESS = N/τ,   standard error = sd/√ESS
    ρ̂_t = 1 − (W − mean over chains of γ̂_t)/V,   V = W (n−1)/n + variance of the chains' means

W is the mean variance within the chains, n their length, γ̂_t the autocovariance (by FFT, divided by n). V also sees
chains that sit in different places, and every chain is cut into two, so that a drift is seen as well. The sum stops by
Geyer's rule: pairs ρ_2k + ρ_2k+1 of a reversible chain are positive and fall; it ends at the first that is not
positive, and a pair above its predecessor counts as much as that. Rank-normalised: x is replaced by
Φ⁻¹((rank − 3/8)/(N + 1/4)), so that heavy tails cannot hide or feign an error.

Draws lie along the first axis and chains along the second, as a run stacks them; each further axis is an observable of
its own. (Geyer 1992; Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021; the definitions are ArviZ's.)
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks

__all__ = ["autocorrelation", "autocorrelation_time", "effective_sample_size", "r_hat", "standard_error"]

Draws = Float[Tensor, "..."]
TAILS = (0.05, 0.95)


def autocorrelation(x: Draws) -> Float[Tensor, "..."]:
    """ρ̂_t at the lags t = 0 … steps − 1 from all chains together; far lags are noise. Shape (steps, …).

    Raises: ValueError as `effective_sample_size`.
    """
    rows, event = _rows(x)
    return _correlations(rows).reshape(len(rows), *event)


def autocorrelation_time(x: Draws) -> Float[Tensor, "..."]:
    """τ̂ = 1 + 2 Σ ρ̂_t in steps of x: so many draws are worth one independent draw, for the mean of x.

    Below 1 where neighbours are anticorrelated; never below 1/log₁₀ N. A constant has τ̂ = 1.

    Raises: ValueError as `effective_sample_size`.
    """
    rows, event = _rows(x)
    return _time(_split(rows)).reshape(event)


def effective_sample_size(x: Draws, kind: str = "bulk") -> Float[Tensor, "..."]:
    """N/τ̂ from x of shape (steps, chains, …), or (steps,) for a single chain; one number for each observable.

    bulk    of the rank-normalised draws: for where the chains are, as a whole;
    tail    the smaller of those of the indicators x ≤ 5 % quantile and x ≤ 95 % quantile: for intervals;
    mean    of the draws themselves: for the mean, as `standard_error` uses it.

    Raises: ValueError where x is not of floating point, has fewer than four steps or no chain, is not finite (on the
    CPU), or the kind is another. Source: Vehtari et al. (2021).
    """
    rows, event = _rows(x)
    if kind == "bulk":
        parts = [_normalised(_split(rows))]
    elif kind == "tail":
        parts = [_split((rows <= _quantile(rows, level)).to(x.dtype)) for level in TAILS]
    elif kind == "mean":
        parts = [_split(rows)]
    else:
        raise ValueError(f"kind is {kind!r}; give 'bulk', 'tail' or 'mean'")
    sizes = [part.shape[0] * part.shape[1] / _time(part) for part in parts]
    return torch.stack(sizes).amin(0).reshape(event)


def r_hat(x: Draws) -> Float[Tensor, "..."]:
    """√(V/W) of the split, rank-normalised chains, or of their distances to the median where that is larger.

    1 where all halves of all chains look alike; above 1.01 they do not yet. NaN for a constant.

    Raises: ValueError as `effective_sample_size`. Source: Vehtari et al. (2021).
    """
    rows, event = _rows(x)
    halves = _split(rows)
    folded = (halves - _quantile(halves, 0.5)).abs()
    return torch.maximum(*(_ratio(_normalised(part)) for part in (halves, folded))).reshape(event)


def standard_error(x: Draws) -> Float[Tensor, "..."]:
    """The Monte Carlo standard error of the mean of x over steps and chains, sd/√ESS with the ESS of the mean.

    Raises: ValueError as `effective_sample_size`.
    """
    rows, event = _rows(x)
    halves = _split(rows)
    size = halves.shape[0] * halves.shape[1] / _time(halves)
    return (rows.flatten(0, 1).std(0) / size.sqrt()).reshape(event)


def _rows(x: Tensor) -> tuple[Tensor, torch.Size]:
    """x as (steps, chains, observables), and the shape of the observables."""
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}; pass x.double()")
    if x.ndim == 0 or len(x) < 4 or x.numel() == 0:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; pass at least four steps along the first axis, one chain along the second"
        )
    if checks.is_free(x):
        checks.finite("x", x)
    x = x.detach() if x.ndim > 1 else x.detach()[:, None]
    return x.reshape(*x.shape[:2], -1), x.shape[2:]


def _split(x: Tensor) -> Tensor:
    """Twice as many chains, half as long; the middle step of an odd number is left out."""
    half = len(x) // 2
    return torch.cat([x[:half], x[-half:]], 1)


def _normalised(x: Tensor) -> Tensor:
    """Ranks over steps and chains together, ties sharing their mean rank, as normal quantiles."""
    values = x.flatten(0, 1).mT.contiguous()
    ordered = values.sort(-1).values
    below, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    rank = (below + up_to + 1).to(x.dtype) / 2
    return torch.special.ndtri((rank - 3 / 8) / (values.shape[-1] + 1 / 4)).mT.reshape(x.shape)


def _quantile(x: Tensor, level: float) -> Tensor:
    """Linear between the order statistics; torch.quantile refuses more than 2^24 values."""
    values = x.flatten(0, 1).sort(0).values
    place = (len(values) - 1) * level
    return torch.lerp(values[math.floor(place)], values[math.ceil(place)], place - math.floor(place))


def _correlations(x: Tensor) -> Tensor:
    steps, chains = x.shape[:2]
    size = 1 << (2 * steps - 1).bit_length()
    power = torch.fft.rfft(x - x.mean(0), n=size, dim=0).abs().square().mean(1)
    covariance = torch.fft.irfft(power, n=size, dim=0)[:steps] / steps
    spread = covariance[0] + (x.mean(0).var(0) if chains > 1 else 0)
    rho = 1 - (covariance[0] * steps / (steps - 1) - covariance) / spread
    rho[0] = 1
    return rho


def _time(x: Tensor) -> Tensor:
    """1 + 2 Σ ρ̂_t by Geyer's rule; of the pair that ends the sum the even lag counts once, if that lengthens τ̂.

    Where the sum ends because the lags do, that pair is positive and its even lag counts once in any case, as ArviZ has
    it.
    """
    steps = len(x)
    rho = _correlations(x)
    last = max(math.ceil((steps - 2) / 2) - 1, 0)
    pairs = rho[: 2 * last + 2].unflatten(0, (last + 1, 2)).sum(1)
    kept = (pairs[:last] > 0).to(x.dtype).cumprod(0)
    end = kept.sum(0, keepdim=True).long()
    even = rho.gather(0, 2 * end)[0]
    after = torch.where(pairs.gather(0, end)[0] >= 0, even, even.clamp(min=0))
    found = -1 + 2 * (pairs.cummin(0).values[:last] * kept).sum(0) + after
    found = found.clamp(min=1 / math.log10(steps * x.shape[1]))
    return torch.where(x.amax((0, 1)) > x.amin((0, 1)), found, torch.ones_like(found))


def _ratio(x: Tensor) -> Tensor:
    steps = len(x)
    return ((x.mean(0).var(0) * steps / x.var(0).mean(0) + steps - 1) / steps).sqrt()
