"""The Fréchet distance of two Gaussians, and of two sets of points by their means and covariances.

    d² = |m_1 − m_2|² + tr(C_1 + C_2 − 2 (C_1 C_2)^{1/2})

is the least E|x − y|² over all pairs of N(m_1, C_1) and N(m_2, C_2) drawn together (Dowson & Landau 1982, eq. 4). With
R = C_1^{1/2}, C_1 C_2 has the eigenvalues of the symmetric R C_2 R, so that the last trace is Σ √ of those: no root of
a matrix that is not symmetric is taken. Of features of two sets of images it is called FID, without the square root
(Heusel et al. 2017).

Two finite samples of one distribution have a distance above zero. Read it beside that floor, at the same sizes.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from . import checks

__all__ = ["frechet", "frechet_gaussian"]


def frechet(first: Float[Tensor, "n d"], second: Float[Tensor, "k e"]) -> Float64[Tensor, ""]:
    """d² of two sets of points, one a row, from their means and their covariances (divided by n − 1), in float64.

    Raises: ValueError where a set has fewer than two points or another number of columns, or a value is not finite.
    Source: Heusel et al. (2017), eq. 6.
    """
    for name, points in (("first", first), ("second", second)):
        checks.shape(name, points, (None, first.shape[-1]))
        checks.finite(name, points)
        if len(points) < 2:
            raise ValueError(f"{name} has one point; a covariance needs at least two")
    checks.same_device(first=first, second=second)
    (m1, c1), (m2, c2) = ((p.double().mean(0), torch.atleast_2d(p.double().mT.cov())) for p in (first, second))
    return frechet_gaussian(m1, c1, m2, c2)


def frechet_gaussian(
    mean1: Float[Tensor, " d"], cov1: Float[Tensor, "d d"], mean2: Float[Tensor, " d"], cov2: Float[Tensor, "d d"]
) -> Float64[Tensor, ""]:
    """d² of N(mean1, cov1) and N(mean2, cov2), in float64; covariances may be singular.

    Raises: ValueError where the shapes disagree, a number is not finite, or a covariance is not symmetric or has an
    eigenvalue clearly below zero.
    """
    d = len(mean1) if mean1.ndim else 0
    for name, value, axes in (("mean1", mean1, 1), ("mean2", mean2, 1), ("cov1", cov1, 2), ("cov2", cov2, 2)):
        checks.shape(name, value, (d or None,) * axes)
        checks.finite(name, value)
    root = _root("cov1", cov1.double())
    cov2 = cov2.double()
    _root("cov2", cov2)
    shared = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    shift = (mean1.double() - mean2.double()).square().sum()
    return (shift + cov1.double().trace() + cov2.trace() - 2 * shared).clamp(min=0)


def _root(name: str, cov: Tensor) -> Tensor:
    """The symmetric square root; eigenvalues that rounding made negative are zero."""
    if not torch.allclose(cov, cov.mT, rtol=1e-6, atol=1e-6 * float(cov.abs().max())):
        raise ValueError(f"{name} is not symmetric; pass ({name} + {name}.mT)/2")
    values, vectors = torch.linalg.eigh(cov)
    if values[0] < -1e-6 * values[-1].abs() or values[-1] < 0:
        raise ValueError(f"{name} has the eigenvalue {values[0]:g}; a covariance has none below zero")
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
