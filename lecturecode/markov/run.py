"""A run: one kernel applied again and again, x_0 → x_1 → …, as an iterator that holds one state.

    x_{t+1} = kernel(x_t, rng);   the states x_{b+k}, x_{b+2k}, … are yielded, b = burn_in, k = thin

Thinning saves memory, never an error bar: the mean over all states is at least as good as that over some of them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .kernels import Kernel

__all__ = ["Run", "run"]


class Run(Iterator[Tensor]):
    """What is left of a run; `len` is the number of states to come, so that a progress bar knows its end.

    `x` is the state after the last step. With it and the generator's own state a run goes on later, or elsewhere:
    run(kernel, walk.x, more, rng) takes the very steps that a longer run would have taken.
    """

    def __init__(self, kernel: Kernel, x: Tensor, states: int, rng: torch.Generator, burn_in: int, thin: int):
        self.x, self.burn_in, self.thin = x, burn_in, thin
        self._kernel, self._rng, self._left = kernel, rng, states

    def __len__(self) -> int:
        return self._left

    def __next__(self) -> Tensor:
        if self._left == 0:
            raise StopIteration
        while self.burn_in > 0:
            self._step()
            self.burn_in -= 1
        for _ in range(self.thin):
            self._step()
        self._left -= 1
        return self.x

    def _step(self) -> None:
        moved = self._kernel(self.x, self._rng)
        if moved.shape != self.x.shape:
            raise ValueError(
                f"the kernel turned the shape {tuple(self.x.shape)} into {tuple(moved.shape)}; "
                "it must keep one row a chain"
            )
        self.x = moved.detach()


def run(kernel: Kernel, x: Tensor, steps: int, rng: torch.Generator, burn_in: int = 0, thin: int = 1) -> Run:
    """Yields x_{thin}, x_{2·thin}, …, x_{steps} of all chains, counted from the end of `burn_in` steps not kept.

    energies = torch.stack([energy(x) for x in tqdm(run(kernel, x, 10_000, rng, burn_in=500))])   # (steps, chains)

    The start itself is not yielded, x is left as it was, and nothing is computed before the first state is asked for.
    Each state is a tensor of its own, without a gradient; memory does not grow unless the caller keeps them.

    Raises: ValueError where x is empty, steps or thin < 1, burn_in < 0, thin does not divide steps, or, at the step,
    the kernel changes the shape.
    """
    if x.numel() == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass at least one chain")
    for name, value, least in (("steps", steps, 1), ("thin", thin, 1), ("burn_in", burn_in, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    if steps % thin:
        raise ValueError(f"steps is {steps}, and thin = {thin} does not divide it; take {steps // thin * thin or thin}")
    return Run(kernel, x, steps // thin, rng, burn_in, thin)
