"""The exact side of discrete diffusion: sums over all K^n states, in nats.

    p_t = (T_t ⊗ ⋯ ⊗ T_t) p_{t−1}                                 site by site: n products with K×K, no K^n × K^n
    R_t[y, x] = Pr(x_{t−1} = y | x_t = x) = q(x|y) p_{t−1}(y)/p_t(x)            Bayes' rule
    −E[ELBO] = Σ_{t=1}^T L_{t−1} + L_T,   L_T = E KL(q(x_T|x_0) ‖ p(x_T)),
    L_{t−1} = E KL(q(x_{t−1}|x_t, x_0) ‖ p_θ(x_{t−1}|x_t)) = −E log p_θ(x_{t−1}|x_t) − H(x_{t−1}|x_t, x_0)

with the mean over data p_0 and noise; L_0 is −E log p_θ(x_0|x_1). A model is a function of t that gives either the
whole matrix p_θ(x_{t−1} = y | x_t = x) at [y, x], or, where the sites are drawn independently, its factors
p_θ(x_{t−1,i} = k | x_t) at [x, i, k]. Then with the sites cut into two halves a and b,

    p_{t−1}(y_a, y_b) = Σ_x A(x, y_a) p_t(x) B(x, y_b),    A and B products over the sites of a half:

one matrix product of K^n × K^{n/2} tables. Row r of a table is the state whose site i is the i-th digit of r in base
K, the lowest first, as in `boltzmann.states`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import checks
from .discrete import DiscreteProcess, normalised

__all__ = ["EnumeratedDiffusion", "all_states", "bound_terms", "model_distribution", "row_numbers", "tabulated"]

Model = Callable[[int], Tensor]
TABLE, MATRIX, ROWS = 2**20, 2**12, 2**13  # most states of a vector, of a matrix, and of one block of a product


def all_states(n: int, categories: int = 2) -> Int[Tensor, "states n"]:
    """The K^n states, one a row: site i of row r is the i-th digit of r in base K.

    Raises: ValueError where there are more than 2^20 of them.
    """
    if n < 1 or categories < 2 or categories**n > TABLE:
        raise ValueError(f"{categories}^{n} states; give n ≥ 1, K ≥ 2 and at most 2^20 = {TABLE} states, or sample")
    return torch.arange(categories**n)[:, None] // categories ** torch.arange(n) % categories


def row_numbers(x: Int[Tensor, "*batch n"], categories: int = 2) -> Int[Tensor, "*batch"]:
    """The row of each state in `all_states`."""
    return (x * categories ** torch.arange(x.shape[-1], device=x.device)).sum(-1)


@dataclass(frozen=True, eq=False)
class EnumeratedDiffusion:
    """A process that starts from the distribution `data` over all K^n states, in the order of `all_states`.

    Raises: ValueError where data is no distribution over K^n states for some n, or K^n is above 2^20.
    """

    process: DiscreteProcess
    data: Float[Tensor, " states"]

    def __post_init__(self) -> None:
        size = self.data.numel() if self.data.ndim == 1 and self.data.dtype == torch.float64 else 0
        if self.process.categories**self.sites != size:
            raise ValueError(
                f"data has shape {tuple(self.data.shape)} and is {self.data.dtype}; give float64 probabilities of all "
                f"{self.process.categories}^n states"
            )
        if len(self.data) > TABLE:
            raise ValueError(f"{len(self.data)} states are too many to enumerate; at most 2^20 = {TABLE} are allowed")
        checks.same_device(data=self.data, matrices=self.process.matrices)
        checks.probabilities("data", self.data)

    @property
    def sites(self) -> int:
        """n."""
        n = 1
        while self.process.categories**n < self.data.numel():
            n += 1
        return n

    def marginal(self, t: int) -> Float[Tensor, " states"]:
        """p_t, the distribution of x_t. Raises: ValueError where t is not one of 0 … T."""
        matrix = self.process.cumulative[self._step(t, 0)]
        return _each_site([matrix] * self.sites, self.data)

    def forward(self, t: int) -> Float[Tensor, "states states"]:
        """The whole matrix of step t, Pr(y → x) at [x, y]. Raises: ValueError where K^n is above 4,096."""
        return _each_site([self.process.matrices[self._step(t, 1) - 1]] * self.sites, self._one()).mT

    def reverse(self, t: int) -> Float[Tensor, "states states"]:
        """R_t by Bayes' rule, Pr(x_{t−1} = y | x_t = x) at [y, x]; uniform for an x that is never reached.

        Raises: ValueError where K^n is above 4,096.
        """
        return normalised(self.forward(t) * self.marginal(t - 1)).mT

    def site_reverse(self, t: int) -> Float[Tensor, "states n K"]:
        """p(x_{t−1,i} = k | x_t = x) at [x, i, k], exactly: the best reverse that draws the sites independently."""
        return self._given(self.process.matrices[self._step(t, 1) - 1], self.marginal(t - 1))

    def site_clean(self, t: int) -> Float[Tensor, "states n K"]:
        """p(x_{0,i} = k | x_t = x) at [x, i, k], exactly: what the best network says."""
        return self._given(self.process.cumulative[self._step(t, 1)], self.data)

    def posterior_entropy(self, t: int) -> Float[Tensor, ""]:
        """H(x_{t−1} | x_t, x_0), a sum over sites: it depends on no model. For t = T + 1 it is H(x_T | x_0)."""
        before = self.process.cumulative[self._step(t - 1, 0)].mT[:, None, :]  # [x_0, ·, x_{t−1}]
        step = self.process.matrices[t - 1][None] if t <= self.process.steps else torch.ones_like(before)
        joint = step * before  # [x_0, x_t, x_{t−1}]
        entropy = (torch.xlogy(joint.sum(2), joint.sum(2)) - torch.xlogy(joint, joint).sum(2)).sum(1)
        return (self._site_data() @ entropy).sum()

    def end_marginals(self) -> Float[Tensor, "n K"]:
        """p(x_{T,i} = k) of each site."""
        return self._site_data() @ self.process.cumulative[-1].mT

    def _site_data(self) -> Float[Tensor, "n K"]:
        k = self.process.categories
        return torch.stack([self.data.reshape(-1, k, k**i).sum((0, 2)) for i in range(self.sites)])

    def _given(self, matrix: Tensor, p: Tensor) -> Float[Tensor, "states n K"]:
        """Pr(y_i = k | x) at [x, i, k] for y of p and x made from it by `matrix` at each site.

        For an x that is never reached it is Pr(y_i = k | x_i), and uniform where x_i is never reached either.
        """
        n, k = self.sites, len(matrix)
        one, factors = torch.eye(k, dtype=p.dtype, device=p.device), []
        for i in range(n):
            half = _each_site([one if j == i else matrix for j in range(n)], p).reshape(-1, 1, k, k**i)
            joint = (matrix[:, :, None] * half).movedim(2, 3)  # [sites above, x_i, sites below, y_i]
            alone = (matrix * p.reshape(-1, k, k**i).sum((0, 2)))[:, None].expand_as(joint)
            joint = torch.where(joint.sum(-1, keepdim=True) > 0, joint, alone).reshape(-1, k)
            factors.append(normalised(joint))
        return torch.stack(factors, 1)

    def _one(self) -> Tensor:
        if len(self.data) > MATRIX:
            raise ValueError(f"a matrix of {len(self.data)}² numbers; at most {MATRIX} states, use the site_ methods")
        return torch.eye(len(self.data), dtype=torch.float64, device=self.data.device)

    def _step(self, t: int, first: int) -> int:
        if not first <= t <= self.process.steps:
            raise ValueError(f"t is {t}; the steps are {first} … {self.process.steps}")
        return t


def tabulated(
    reverse: Callable[[Tensor, int], Tensor], states: Int[Tensor, "states n"]
) -> Callable[[int], Float[Tensor, "states n K"]]:
    """A model for `bound_terms` and `model_distribution` from a rule (x_t, t) ↦ p_θ(x_{t−1,i} = k | x_t)."""
    return lambda t: reverse(states, t)


def bound_terms(
    exact: EnumeratedDiffusion, model: Model, prior: Float[Tensor, " K"] | None = None
) -> Float[Tensor, " terms"]:
    """L_0 … L_T of a model in nats, their sum −E[ELBO], exactly; `prior` is that of a site at T, the process's own.

    Raises: ValueError where the model's tables do not fit. Source: Sohl-Dickstein et al. (2015), section 2.4.
    """
    terms = []
    for t in range(1, exact.process.steps + 1):
        table = _checked(model(t), exact.sites, exact.process.categories, t)
        p = exact.marginal(t)
        truth = exact.reverse(t) * p if table.ndim == 2 else exact.site_reverse(t) * p[:, None, None]
        terms.append(-torch.xlogy(truth, table).sum() - exact.posterior_entropy(t))
    end = exact.process.prior if prior is None else prior
    checks.probabilities("prior", end)
    terms.append(-torch.xlogy(exact.end_marginals(), end).sum() - exact.posterior_entropy(exact.process.steps + 1))
    return torch.stack(terms)


def model_distribution(
    process: DiscreteProcess, sites: int, model: Model, prior: Float[Tensor, " K"] | None = None
) -> Float[Tensor, " states"]:
    """p_θ(x_0) of every state: from `prior` at T, that of a site and the process's own, one step back after the other.

    Raises: ValueError where the model's tables do not fit.
    """
    site = process.prior if prior is None else prior
    checks.probabilities("prior", site)
    p = _products(site.expand(1, sites, -1))[0]
    for t in range(process.steps, 0, -1):
        table = _checked(model(t), sites, process.categories, t)
        p = _back(table, p) if table.ndim == 3 else table @ p
    return p


def _back(factors: Float[Tensor, "states n K"], p: Float[Tensor, " states"]) -> Float[Tensor, " states"]:
    """Σ_x p(x) Π_i factors[x, i, y_i] for all y, from two tables of half of the sites, a block of rows at a time."""
    total = torch.zeros((), dtype=p.dtype, device=p.device)
    for rows, weight in zip(factors.split(ROWS), p.split(ROWS), strict=True):
        low, high = (_products(part) for part in rows.tensor_split(2, 1))
        total = total + high.mT @ (weight[:, None] * low)
    return total.flatten()


def _products(factors: Float[Tensor, "rows m K"]) -> Float[Tensor, "rows states"]:
    """Π_i factors[x, i, y_i] for all y of these m sites."""
    table = torch.ones_like(factors[:, 0, :1]) if factors.shape[1] else factors.new_ones(len(factors), 1)
    for site in factors.unbind(1):
        table = (site[:, :, None] * table[:, None, :]).flatten(1)
    return table


def _each_site(matrices: list[Tensor], p: Float[Tensor, "*batch states"]) -> Float[Tensor, "*batch states"]:
    """(M_{n−1} ⊗ ⋯ ⊗ M_0) p: each product brings the next site to the end, and after n of them the order is back."""
    for matrix in matrices:
        p = (p.unflatten(-1, (-1, len(matrix))) @ matrix.mT).mT.flatten(-2)
    return p


def _checked(table: Tensor, sites: int, categories: int, t: int) -> Tensor:
    matrix, factors = (categories**sites,) * 2, (categories**sites, sites, categories)
    if table.shape not in (matrix, factors):
        raise ValueError(f"the model gives shape {tuple(table.shape)} for t = {t}; give {matrix} or {factors}")
    rows = table if table.ndim == 3 else table.mT
    checks.probabilities(f"the model at t = {t}", rows)
    rows = rows.to(torch.float64)
    rows = rows / rows.sum(-1, keepdim=True)  # float32 sums to one within 1e-7
    return rows if table.ndim == 3 else rows.mT
