"""One sum over several processes: each takes its blocks of rows, and the parts are joined once, at the end.

A logarithm of a sum is joined by two collectives: the largest, then the sums in units of it. Sums in one unit need one.
All processes get the same number. Without torch.distributed nothing is done.
"""

import torch
from jaxtyping import Float
from torch import Tensor, distributed

__all__ = ["joined", "share", "summed"]


def share(couplings: Float[Tensor, "n n"], biases: Float[Tensor, " n"]) -> tuple[int, int]:
    """(rank, number of ranks), after a look that all of them were given the same machine.

    Raises: ValueError where they were not: a sum over the ranks would then mix two machines without a word.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return 0, 1
    mark = torch.cat([couplings.detach().flatten(), biases.detach()])
    if not _same(torch.tensor([len(biases), mark.element_size()], device=mark.device)) or not _same(mark):
        raise ValueError(
            "the ranks hold different machines, and a sum over all configurations is shared between them; "
            "give all ranks the same couplings, biases and beta, or call it outside torch.distributed"
        )
    return distributed.get_rank(), distributed.get_world_size()


def _same(mark: Tensor) -> bool:
    """Whether all ranks passed these numbers; of the same length and dtype they must be."""
    both = torch.cat([mark, -mark])
    distributed.all_reduce(both, distributed.ReduceOp.MAX)
    return torch.equal(both, torch.cat([mark, -mark]))


def joined(log_sum: Float[Tensor, ""], ranks: int) -> Float[Tensor, ""]:
    """The logarithm of the sum over all ranks."""
    if ranks == 1:
        return log_sum
    top = log_sum.clone()
    distributed.all_reduce(top, distributed.ReduceOp.MAX)
    part = torch.where(log_sum == top, torch.ones_like(top), (log_sum - top).exp())  # both may be −∞
    return top + summed([part], ranks)[0].log()


def summed(sums: list[Tensor], ranks: int) -> list[Tensor]:
    """The sums of all ranks, where all are in the same unit."""
    for x in sums if ranks > 1 else ():
        distributed.all_reduce(x)
    return sums
