"""Exact averages of a machine with the weights e^{w(s)}, w(s) = ½ sᵀJs + bᵀs, over all 2^n configurations.

Every function sums over the `leaves` of the machine: the machine itself, or the parts it was cut into. With Z_k the sum
over part k, log Z = log Σ_k Z_k, and an average is the mean of those over the parts with the weights Z_k/Z.

Spins without biases weigh the same turned over, w(−s) = w(s): one unit is held up, and Z is twice the sum.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import checks
from . import leaf_sums, table
from .leaves import PLAIN, RANGE, Leaf, leaves
from .ranks import share
from .states import SPIN, Alphabet, log_weights, working_dtype

__all__ = ["LIMIT", "check_sum", "log_partition", "log_partitions", "moments", "parts"]

LIMIT = 44  # units, unless an argument says otherwise
TWICE = 20  # units up to which a second derivative is there


def log_partition(couplings: Tensor, biases: Tensor, alphabet: Alphabet, limit: int = LIMIT) -> Float[Tensor, ""]:
    """log Z = log Σ_s e^{w(s)}; ∂/∂b = ⟨s⟩, ∂/∂J = ½⟨ssᵀ⟩. Raises: ValueError where n > limit."""
    check_sum(couplings, biases, limit)
    wide = working_dtype(biases.device)
    if len(biases) <= PLAIN:
        return log_weights(couplings.to(wide), biases.to(wide), alphabet).logsumexp(-1).to(biases.dtype)
    return _LogPartition.apply(couplings, biases, alphabet, True)  # type: ignore[return-value]


def log_partitions(
    couplings: Tensor, biases: Float[Tensor, "*batch n"], alphabet: Alphabet, limit: int = LIMIT
) -> Float[Tensor, "*batch"]:
    """log Z for each row of biases, differentiable; nothing is shared between ranks.

    Memory stays constant: of a large batch the tables are made again for the gradient, some rows at a time.
    Raises: ValueError where n is above the limit, or a parameter is not finite.
    """
    (*batch, n), wide = biases.shape, working_dtype(biases.device)
    check_sum(couplings, biases, limit)
    rows = biases.reshape(math.prod(batch), n)
    if n > PLAIN:
        return torch.stack([_LogPartition.apply(couplings, b, alphabet, False) for b in rows]).reshape(batch)  # type: ignore[misc]

    def of_some(some: Tensor) -> Tensor:
        return log_weights(couplings.to(wide), some.to(wide), alphabet).logsumexp(-1)

    split = rows.split(max(1, 2**22 >> n))
    again = len(split) > 1 and torch.is_grad_enabled()
    chunks = [
        checkpoint(of_some, b, use_reentrant=False, preserve_rng_state=False) if again else of_some(b) for b in split
    ]
    return torch.cat(chunks).to(biases.dtype).reshape(batch)


def moments(
    couplings: Tensor, biases: Tensor, alphabet: Alphabet, limit: int = LIMIT, together: bool = True
) -> tuple[Float[Tensor, ""], Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """log Z, ⟨s⟩ and ⟨ssᵀ⟩ in one pass; with `together` the ranks of torch.distributed share the work.

    Raises: ValueError where n > limit.
    """
    n, wide = len(biases), working_dtype(biases.device)
    check_sum(couplings, biases, limit)
    ranks = share(couplings, biases) if together and n > PLAIN else (0, 1)
    total, mean, second = (biases.new_zeros(shape, dtype=wide) for shape in ((), (n,), (n, n)))
    total -= torch.inf
    mirrored, found = parts(couplings, biases, alphabet)
    for leaf in found:
        log_z, of_free, of_pairs = leaf_sums.moments(leaf, ranks)
        if log_z == -torch.inf:  # too little to be seen: its averages are of nothing
            continue
        full = biases.new_zeros(n, dtype=wide)
        free = torch.tensor(leaf.free, device=full.device)
        full[free], full[list(leaf.held)] = of_free, full.new_tensor(leaf.values)
        pairs = full[:, None] * full
        pairs[free[:, None], free] = of_pairs
        before, total = total, torch.logaddexp(total, log_z)
        keep, add = (before - total).exp(), (log_z - total).exp()
        mean, second = keep * mean + add * full, keep * second + add * pairs
    if mirrored:
        total, mean = total + math.log(2), torch.zeros_like(mean)
    return tuple(x.to(biases.dtype) for x in (total, mean, second))  # type: ignore[return-value]


def parts(couplings: Tensor, biases: Tensor, alphabet: Alphabet, keep: int = 0) -> tuple[bool, Iterator[Leaf]]:
    """Whether the machine is its own mirror image, and the leaves of it (then of the half whose last unit is up)."""
    wide = working_dtype(biases.device)
    dtype = biases.dtype if biases.dtype in RANGE and _products_are_exact(biases.device) else wide
    couplings, biases = couplings.detach(), biases.detach()
    root = Leaf(
        couplings.to(wide), biases.to(wide), alphabet, biases.new_zeros((), dtype=wide), tuple(range(len(biases)))
    )
    mirrored = alphabet == SPIN and len(biases) > PLAIN and not bool(biases.any())
    if mirrored:
        root = root.clamp(len(biases) - 1, 1)
    return mirrored, leaves(root, dtype, keep)


def check_size(n: int, limit: int) -> None:
    """Raises ValueError where n > limit, before any work."""
    if n > limit:
        raise ValueError(
            f"cannot enumerate n = {n} units: 2^{n} states; at most {limit} are allowed here (limit=…); "
            "sample instead (lecturecode.markov)"
        )


def check_sum(couplings: Tensor, biases: Tensor, limit: int) -> None:
    """Raises ValueError as `check_size`, or where a parameter is not finite: then no part would have a certificate."""
    n = biases.shape[-1]
    check_size(n, limit)
    if n > PLAIN or checks.is_free(biases):
        checks.finite("couplings", couplings.detach())
        checks.finite("biases", biases.detach())


class _LogPartition(torch.autograd.Function):
    """log Z forward by one product, its gradient by one streaming pass over three."""

    @staticmethod
    def forward(ctx, couplings: Tensor, biases: Tensor, alphabet: Alphabet, together: bool) -> Tensor:
        ctx.save_for_backward(couplings, biases)
        ctx.alphabet, ctx.together = alphabet, together
        ranks = share(couplings, biases) if together else (0, 1)
        mirrored, found = parts(couplings, biases, alphabet)
        log_z = torch.stack([leaf_sums.log_sum(leaf, ranks) for leaf in found]).logsumexp(0)
        return (log_z + math.log(2) if mirrored else log_z).to(biases.dtype)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        couplings, biases = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the table's own moments, which can be differentiated again
            if len(biases) > TWICE:
                raise ValueError(
                    f"a second derivative of log Z of {len(biases)} units: at most {TWICE} are allowed; "
                    "call backward without create_graph, or difference the moments"
                )
            wide = working_dtype(biases.device)
            p = log_weights(couplings.to(wide), biases.to(wide), ctx.alphabet).softmax(-1)
            mean, second = (x.to(biases.dtype) for x in table.moments(p, len(biases), ctx.alphabet))
        else:
            _, mean, second = moments(couplings, biases, ctx.alphabet, len(biases), ctx.together)
        return grads[0] * second / 2, grads[0] * mean, None, None


def _products_are_exact(device: torch.device) -> bool:
    """Whether a float32 product has float32 accuracy: neither autocast nor TF32 or bfloat16 have been asked for."""
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set for one backend alone
        return False
    return precision == "highest" and not torch.is_autocast_enabled(device.type)
