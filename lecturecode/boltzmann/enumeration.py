"""Exact averages of a machine with the weights e^{w(s)}, w(s) = ½ sᵀJs + bᵀs, over all 2^n configurations.

Every function sums over the `leaves` of the machine: the machine itself, or the parts it was cut into. With Z_k the sum
over part k, log Z = log Σ_k Z_k, and an average is the mean of those over the parts with the weights Z_k/Z.

Spins without biases weigh the same turned over, w(−s) = w(s): one unit is held up, and Z is twice the sum.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from . import leaf_sums, table
from .leaves import PLAIN, Leaf, leaves
from .ranks import share
from .states import SPIN, Alphabet, log_weights

__all__ = ["LIMIT", "check_size", "log_partition", "log_partitions", "moments", "parts"]

LIMIT = 44  # units, unless an argument says otherwise
TWICE = 20  # units up to which a second derivative is there


def log_partition(couplings: Tensor, biases: Tensor, alphabet: Alphabet, limit: int = LIMIT) -> Float[Tensor, ""]:
    """log Z = log Σ_s e^{w(s)}; ∂/∂b = ⟨s⟩, ∂/∂J = ½⟨ssᵀ⟩. Raises: ValueError where n > limit."""
    check_size(len(biases), limit)
    wide = _wide(biases)
    if len(biases) <= PLAIN:
        return log_weights(couplings.to(wide), biases.to(wide), alphabet).logsumexp(-1).to(biases.dtype)
    return _LogPartition.apply(couplings, biases, alphabet, True)  # type: ignore[return-value]


def log_partitions(couplings: Tensor, biases: Float[Tensor, "batch n"], alphabet: Alphabet) -> Float[Tensor, " batch"]:
    """log Z for each row of biases, differentiable; nothing is shared between ranks.

    Raises: ValueError where n is above the limit.
    """
    n = biases.shape[-1]
    check_size(n, LIMIT)
    if n > PLAIN:
        return torch.stack([_LogPartition.apply(couplings, b, alphabet, False) for b in biases])  # type: ignore[misc]
    wide = _wide(biases)
    at_once = max(1, 2**22 >> n)
    chunks = [log_weights(couplings.to(wide), b.to(wide), alphabet).logsumexp(-1) for b in biases.split(at_once)]
    return torch.cat(chunks).to(biases.dtype)


def moments(
    couplings: Tensor, biases: Tensor, alphabet: Alphabet, limit: int = LIMIT, together: bool = True
) -> tuple[Float[Tensor, ""], Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """log Z, ⟨s⟩ and ⟨ssᵀ⟩ in one pass; with `together` the ranks of torch.distributed share the work.

    Raises: ValueError where n > limit.
    """
    n = len(biases)
    check_size(n, limit)
    ranks = share(couplings, biases) if together else (0, 1)
    log_z, means, seconds = [], [], []
    mirrored, found = parts(couplings, biases, alphabet)
    for leaf in found:
        log_z_leaf, mean, second = leaf_sums.moments(leaf, ranks)
        full = biases.new_zeros(n, dtype=log_z_leaf.dtype)
        free = torch.tensor(leaf.free, device=full.device)
        full[free], full[list(leaf.held)] = mean, full.new_tensor(leaf.values)
        pairs = full[:, None] * full
        pairs[free[:, None], free] = second
        log_z.append(log_z_leaf)
        means.append(full)
        seconds.append(pairs)
    each = torch.stack(log_z)
    total = each.logsumexp(0)
    weights = (each - total).exp()
    there = [k for k, weight in enumerate(weights.tolist()) if weight > 0]  # the others' averages are of nothing
    mean = sum(weights[k] * means[k] for k in there) * (0.0 if mirrored else 1.0)
    second = sum(weights[k] * seconds[k] for k in there)
    return tuple(x.to(biases.dtype) for x in (total, mean, second))  # type: ignore[return-value]


def parts(couplings: Tensor, biases: Tensor, alphabet: Alphabet, keep: int = 0) -> tuple[bool, Iterator[Leaf]]:
    """Whether the machine is its own mirror image, and the leaves of it (of that half of it whose unit is held up)."""
    dtype, wide = biases.dtype, _wide(biases)
    couplings, biases = couplings.detach(), biases.detach()
    root = Leaf(
        couplings.to(wide), biases.to(wide), alphabet, biases.new_zeros((), dtype=wide), tuple(range(len(biases)))
    )
    mirrored = alphabet == SPIN and len(biases) > PLAIN and not bool(biases.any())
    if mirrored:
        half = root.clamp(len(biases) - 1, 1)
        root = half.with_weight(torch.full_like(half.own, 2.0).log())
    return mirrored, leaves(root, dtype, keep)


def check_size(n: int, limit: int) -> None:
    """Raises ValueError where n > limit, before any work."""
    if n > limit:
        raise ValueError(
            f"cannot enumerate n = {n} units: 2^{n} states; at most {limit} are allowed here (limit=…); "
            "sample instead (lecturecode.markov)"
        )


class _LogPartition(torch.autograd.Function):
    """log Z forward by one product, its gradient by one streaming pass over three."""

    @staticmethod
    def forward(ctx, couplings: Tensor, biases: Tensor, alphabet: Alphabet, together: bool) -> Tensor:
        ctx.save_for_backward(couplings, biases)
        ctx.alphabet, ctx.together = alphabet, together
        ranks = share(couplings, biases) if together else (0, 1)
        _, found = parts(couplings, biases, alphabet)
        return torch.stack([leaf_sums.log_sum(leaf, ranks) for leaf in found]).logsumexp(0).to(biases.dtype)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        couplings, biases = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the table's own moments, which can be differentiated again
            if len(biases) > TWICE:
                raise ValueError(
                    f"a second derivative of log Z of {len(biases)} units: at most {TWICE} are allowed; "
                    "call backward without create_graph, or difference the moments"
                )
            p = log_weights(couplings, biases, ctx.alphabet).softmax(-1)
            mean, second = table.moments(p, len(biases), ctx.alphabet)
        else:
            _, mean, second = moments(couplings, biases, ctx.alphabet, len(biases), ctx.together)
        return grads[0] * second / 2, grads[0] * mean, None, None


def _wide(x: Tensor) -> torch.dtype:
    """The dtype of exponents and sums: float64 where the device has it."""
    return x.dtype if x.device.type == "mps" else torch.float64
