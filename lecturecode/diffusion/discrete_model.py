"""A network as a model of discrete data: it says p̃(x_0|x_t) for each site, and its bound is estimated at random steps.

    L = Σ_{t=1}^T E KL(q(x_{t−1}|x_t, x_0) ‖ p_θ(x_{t−1}|x_t)) = E_t [T KL_t],    t uniform on 1 … T

in nats, per example: all of −E[ELBO] but L_T, in which nothing is learned. Both factors of the divergence are products
over the sites, so it is a sum of K terms for each site. The cross entropy −Σ_i log p̃(x_{0,i}|x_t) has its minimum at
the same p̃ for every t, but weights the steps otherwise (Austin et al. 2021, section 3.4, use both).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..rng import uniform
from .discrete import DiscreteProcess, Steps, categorical

__all__ = ["DiscreteDenoiser", "sample_sites"]

REACH = 20.0  # the level a network is told stays within ±20


class DiscreteDenoiser(nn.Module):
    """(x_t, t) ↦ p̃(x_0|x_t) for each site, from a network that is called as net(x, level).

    x is x_t one-hot, (batch, n, K); level is log(s/(1 − s)) of the signal s = process.signal[t] that is left, one for
    each row, within ±20. The network gives (batch, n, K) or (batch, n·K) logits.
    """

    def __init__(self, net: nn.Module, process: DiscreteProcess):
        super().__init__()
        self.net, self.process = net, process

    def forward(self, xt: Int[Tensor, "batch n"], t: Steps) -> Float[Tensor, "batch n K"]:
        """p̃(x_0|x_t). Raises: ValueError where x_t, t or the size of the network's answer does not fit the process."""
        k = self.process.categories
        self.process._check("xt", xt)
        signal = self.process.signal.to(xt.device)[self.process._times(t, xt, 0)]
        dtype = next((p.dtype for p in self.net.parameters()), torch.get_default_dtype())
        level = torch.logit(signal).clamp(-REACH, REACH).to(dtype).expand(len(xt))
        answer = self.net(one_hot(xt, k).to(dtype), level)
        if answer.numel() != xt.numel() * k:
            raise ValueError(
                f"the network gives shape {tuple(answer.shape)} for x of {tuple(xt.shape)}; {k} logits for each site"
            )
        return answer.reshape(*xt.shape, k).softmax(-1)

    def reverse(self, xt: Int[Tensor, "batch n"], t: Steps) -> Float[Tensor, "batch n K"]:
        """p_θ(x_{t−1}|x_t) of each site."""
        return self.process.reverse(self(xt, t), xt, t)

    def loss(self, x0: Int[Tensor, "batch n"], rng: torch.Generator, bound: float = 1.0) -> Float[Tensor, ""]:
        """bound · T KL_t + (1 − bound) · (−log p̃(x_0|x_t)), in nats, the mean over the batch; t and x_t are drawn.

        The steps are spread evenly over the batch. bound = 1 is an unbiased estimate of −E[ELBO] − L_T, bound = 0 the
        cross entropy on x_0.

        Raises: ValueError where x_0 has other categories than the process.
        """
        steps = self.process.steps
        spread = torch.arange(len(x0), device=x0.device) / len(x0)
        t = ((uniform((1,), rng, spread) + spread) % 1 * steps).long().clamp(max=steps - 1) + 1
        xt = self.process.noise(x0, t, rng)
        predicted = self(xt, t)
        nats = predicted.new_zeros(len(x0))
        if bound:
            truth = self.process.posterior(x0, xt, t).to(predicted.dtype)
            model = self.process.reverse(predicted, xt, t).clamp(min=torch.finfo(predicted.dtype).tiny)
            nats = bound * steps * (torch.xlogy(truth, truth) - truth * model.log()).sum((1, 2))
        if bound != 1:
            right = predicted.gather(-1, x0[..., None]).clamp(min=torch.finfo(predicted.dtype).tiny)
            nats = nats - (1 - bound) * right.log().sum((1, 2))
        return nats.mean()


@torch.no_grad()
def sample_sites(
    process: DiscreteProcess,
    reverse: Callable[[Tensor, int], Tensor],
    shape: tuple[int, int],
    rng: torch.Generator,
) -> Int[Tensor, "count n"]:
    """`shape` = (count, n) draws of the model: x_T from process.prior, then each site of x_{t−1} from reverse(x_t, t).

    The sites are drawn independently given x_t, as in the factorised tables of `model_distribution`: a whole matrix
    p_θ(x_{t−1}|x_t) can do more.
    """
    x = categorical(process.prior.expand(*shape, -1), rng)
    for t in range(process.steps, 0, -1):
        x = categorical(reverse(x, t), rng)
    return x
