"""Discrete diffusion: n sites with K categories each, noised site by site by stochastic matrices T_1 … T_T.

    q(x_t = i | x_{t−1} = j) = (T_t)_ij                                       columns sum to one
    q(x_t | x_0)             = T̄_t,  T̄_t = T_t ⋯ T_1,  T̄_0 = 1               the latest on the left
    q(x_{t−1} = k | x_t = i, x_0 = j) = (T_t)_ik (T̄_{t−1})_kj / (T̄_t)_ij      by Bayes' rule

A network says p̃(x_0|x_t) for each site, and a step back is the mean of the last line over it,

    p_θ(x_{t−1} = k | x_t = i) = Σ_j q(x_{t−1} = k | x_t = i, x_0 = j) p̃(x_0 = j | x_t).

exact where p̃ is. (Austin et al. 2021, section 3.3, weight each j by (T̄_t)_ij besides and normalise: `posterior_of`
makes p̃ from such a network's answer.) Categories are 0 … K − 1, sites the last axis; times 1 … T.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import checks
from ..rng import uniform

__all__ = ["DiscreteProcess"]

Steps = int | Tensor


@dataclass(frozen=True, eq=False)
class DiscreteProcess:
    """The process with matrices[t − 1, i, j] = Pr(j → i) in step t, the same for every site.

    DiscreteProcess.uniform(torch.linspace(0.02, 0.3, 20), categories=2)

    Raises: ValueError where a matrix is not stochastic by columns.
    """

    matrices: Tensor  # (steps, K, K)

    def __post_init__(self) -> None:
        T = self.matrices
        if T.ndim != 3 or not len(T) or T.shape[1] != T.shape[2] or T.shape[1] < 2:
            raise ValueError(f"matrices: {tuple(T.shape)}; give one square matrix a step, K ≥ 2 categories")
        if T.dtype != torch.float64:
            raise ValueError(f"matrices is {T.dtype}; pass matrices.to(torch.float64)")
        checks.finite("matrices", T)
        if (T < 0).any():
            k, i, j = (T < 0).nonzero()[0].tolist()
            raise ValueError(f"matrices[{k}, {i}, {j}] is {T[k, i, j].item():g}; a probability is not negative")
        wrong = (T.sum(1) - 1).abs() > 1e-9
        if wrong.any():
            k, j = wrong.nonzero()[0].tolist()
            rows = ((T[k].sum(1) - 1).abs() <= 1e-9).all()
            cure = "its rows sum to 1, so pass matrices.mT" if rows else f"divide by matrices[{k}].sum(0)"
            raise ValueError(f"column {j} of matrices[{k}] sums to {T[k, :, j].sum().item():.6g}, not 1; {cure}")

    @classmethod
    def uniform(cls, rates: Sequence[float] | Tensor, categories: int = 2) -> "DiscreteProcess":
        """With probability β_t a site is drawn anew from all categories: T_t = (1 − β_t) 1 + β_t/K.

        Raises: ValueError where a rate is outside [0, 1], or there are fewer than two categories.
        """
        rates = _rates(rates, categories)
        return cls((1 - rates) * torch.eye(categories, dtype=torch.float64) + rates / categories)

    @classmethod
    def flips(cls, probabilities: Sequence[float] | Tensor) -> "DiscreteProcess":
        """Bits, each flipped in step t with the probability f_t: f_t = ½ forgets all in one step.

        Raises: ValueError where a probability is outside [0, 1].
        """
        flip = _rates(probabilities, 2)
        return cls(torch.cat([torch.cat([1 - flip, flip], 2), torch.cat([flip, 1 - flip], 2)], 1))

    @classmethod
    def absorbing(cls, rates: Sequence[float] | Tensor, categories: int = 2) -> "DiscreteProcess":
        """With probability β_t a site becomes the mask, one more category with the number `categories`, and stays it.

        Raises: ValueError as `uniform`.
        """
        rates = _rates(rates, categories)
        one = torch.eye(categories + 1, dtype=torch.float64)
        return cls((1 - rates) * one + rates * one[:, -1:])

    @property
    def steps(self) -> int:
        """T."""
        return len(self.matrices)

    @property
    def categories(self) -> int:
        """K, with the mask."""
        return self.matrices.shape[1]

    @cached_property
    def cumulative(self) -> Float[Tensor, "times K K"]:
        """T̄_0 … T̄_T."""
        products = [torch.eye(self.categories, dtype=torch.float64, device=self.matrices.device)]
        for matrix in self.matrices:
            products.append(matrix @ products[-1])
        return torch.stack(products)

    @cached_property
    def signal(self) -> Float[Tensor, " times"]:
        """For t = 0 … T the largest total variation of q(x_t|x_0) between two values of x_0.

        (1 − β_1) ⋯ (1 − β_t) for `uniform` and `absorbing`. The last one is what the noise end still knows of a site.
        """
        columns = self.cumulative.mT
        return (columns[:, :, None] - columns[:, None]).abs().sum(-1).amax((1, 2)).div(2).clamp(max=1)

    @cached_property
    def prior(self) -> Float[Tensor, " K"]:
        """p(x_T) of a site in the model: what the noise makes of a site that takes all categories alike."""
        return self.cumulative[-1].mean(1)

    def marginal(self, x0: Int[Tensor, "batch n"], t: Steps) -> Float[Tensor, "batch n K"]:
        """q(x_t|x_0) of each site, for t from 0.

        Raises: ValueError where x_0 has a category that the process does not know, or t is no step.
        """
        self._check("x0", x0)
        return self._table(self.cumulative.mT, self._times(t, x0, 0), x0)

    def noise(self, x0: Int[Tensor, "batch n"], t: Steps, rng: torch.Generator) -> Int[Tensor, "batch n"]:
        """A draw of q(x_t|x_0). Raises: ValueError as `marginal`."""
        return categorical(self.marginal(x0, t), rng)

    def posterior(self, x0: Int[Tensor, "batch n"], xt: Int[Tensor, "batch n"], t: Steps) -> Float[Tensor, "batch n K"]:
        """q(x_{t−1}|x_t, x_0) of each site, uniform where x_t cannot come from x_0.

        Raises: ValueError as `marginal`, and where t is 0. Source: Austin et al. (2021), eq. 3.
        """
        self._check("x0", x0)
        self._check("xt", xt)
        t = self._times(t, xt, 1)
        return normalised(self._table(self.matrices, t - 1, xt) * self._table(self.cumulative.mT, t - 1, x0))

    def reverse(
        self, predicted: Float[Tensor, "batch n K"], xt: Int[Tensor, "batch n"], t: Steps
    ) -> Float[Tensor, "batch n K"]:
        """p_θ(x_{t−1}|x_t) of each site: the mean of q(x_{t−1}|x_t, x_0) over predicted = p̃(x_0|x_t).

        Weight on an x_0 from which x_t cannot come is spread over the others in their proportion; uniform where there
        are none.

        Raises: ValueError as `posterior`.
        """
        self._check("xt", xt)
        t = self._times(t, xt, 1)
        checks.shape("predicted", predicted, (*xt.shape, self.categories))
        seen = self._table(self.cumulative, t, xt).to(predicted)  # (T̄_t)_ij for each j
        weights = normalised(torch.where(seen > 0, predicted + torch.finfo(seen.dtype).tiny, 0.0))
        before = self.cumulative.to(predicted)[t - 1]
        back = (weights / torch.where(seen > 0, seen, 1.0)) @ before.mT
        return normalised(self._table(self.matrices, t - 1, xt).to(predicted) * back)

    def posterior_of(
        self, before: Float[Tensor, "batch n K"], xt: Int[Tensor, "batch n"], t: Steps
    ) -> Float[Tensor, "batch n K"]:
        """p̃(x_0|x_t) ∝ q(x_t|x_0) before(x_0), site by site, from what is said of a site without looking at it.

        A network of Austin et al. says `before`: at its best p(x_0 of site i | x_t of all other sites).

        Raises: ValueError as `posterior`. Source: Austin et al. (2021), section 3.3.
        """
        self._check("xt", xt)
        return normalised(before * self._table(self.cumulative, self._times(t, xt, 1), xt).to(before))

    def _table(self, tables: Tensor, t: Tensor, x: Tensor) -> Tensor:
        """tables[t, x] with t one for all rows or one for each."""
        return tables.to(x.device)[t[:, None] if t.ndim else t, x]

    def _times(self, t: Steps, like: Tensor, first: int) -> Tensor:
        t = torch.as_tensor(t, device=like.device)
        if t.ndim > 1 or (t.ndim and len(t) != len(like)) or t.is_floating_point():
            raise ValueError(f"t has shape {tuple(t.shape)} and is {t.dtype}; give one whole step, or one for each row")
        if checks.is_free(t) and not ((t >= first) & (t <= self.steps)).all():
            raise ValueError(f"t goes from {t.min()} to {t.max()}; the steps are {first} … {self.steps}")
        return t

    def _check(self, name: str, x: Tensor) -> None:
        checks.shape(name, x, (None, None))
        if x.is_floating_point() or x.dtype == torch.bool:
            raise ValueError(f"{name} is {x.dtype}; categories are whole numbers: pass {name}.long()")
        if checks.is_free(x) and not ((x >= 0) & (x < self.categories)).all():
            raise ValueError(
                f"{name} has categories from {x.min()} to {x.max()}; this process has 0 … {self.categories - 1}"
            )


def categorical(p: Float[Tensor, "*batch K"], rng: torch.Generator) -> Int[Tensor, "*batch"]:
    """One draw from each row of probabilities, by the inverse of its sum."""
    sums = p.cumsum(-1)
    level = uniform(tuple(p.shape[:-1]), rng, p)[..., None]
    return (level * sums[..., -1:] >= sums).sum(-1).clamp(max=p.shape[-1] - 1)


def normalised(joint: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch K"]:
    """Divided by its sum; uniform where that is zero."""
    total = joint.sum(-1, keepdim=True)
    return torch.where(total > 0, joint / torch.where(total > 0, total, 1.0), 1 / joint.shape[-1])


def _rates(rates: Sequence[float] | Tensor, categories: int) -> Float[Tensor, "steps 1 1"]:
    table = torch.as_tensor(rates, dtype=torch.float64)
    if categories < 2:
        raise ValueError(f"categories is {categories}; a site with fewer than two has nothing to say")
    if table.ndim != 1 or not len(table):
        raise ValueError(f"the rates have shape {tuple(table.shape)}; give one for each step, at least one")
    bad = ~((table >= 0) & (table <= 1))
    if bad.any():
        k = int(bad.nonzero()[0])
        raise ValueError(f"the rate of step {k + 1} is {table[k].item():g}; a probability lies between 0 and 1")
    return table[:, None, None]
