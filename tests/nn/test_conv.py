"""Convolutional networks: their shapes, their adjoint, their start, their door."""

# pyright: reportCallIssue=false

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lecturecode import seeded
from lecturecode.nn import conv_decoder, conv_encoder
from lecturecode.vae import VAE, Bernoulli, Decoder, Encoder, PixelGaussian, StandardNormal


def sides(net, x):
    """The side of every image that passes through the net."""
    found = []
    for layer in net:
        x = layer(x)
        if x.ndim == 4:
            found.append(x.shape[-1])
    return sorted(set(found))


@pytest.mark.parametrize(
    ("side", "channels", "passed"), [(8, [4, 6], [2, 4, 8]), (28, [3, 5], [7, 14, 28]), (8, [4], [4, 8])]
)
def test_images_are_halved_and_doubled(side, channels, passed):
    rng = seeded(1)
    down, up = conv_encoder(side, channels, 6, rng), conv_decoder(3, channels[::-1], side, rng, maps=2)
    assert sides(down, torch.zeros(2, side**2)) == sides(up, torch.zeros(2, 3)) == passed
    assert down(torch.zeros(2, side**2)).shape == (2, 6)
    assert up(torch.zeros(2, 3)).shape == (2, 2 * side**2)


def test_up_is_the_adjoint_of_down():
    """⟨y, Dx⟩ = ⟨Dᵀy, x⟩ with one set of weights and no bias."""
    rng = seeded(2)
    (conv,) = (layer for layer in conv_encoder(8, [5], 1, rng, dtype=torch.float64) if isinstance(layer, nn.Conv2d))
    x = torch.randn(1, 1, 8, 8, generator=rng, dtype=torch.float64)
    y = torch.randn(1, 5, 4, 4, generator=rng, dtype=torch.float64)
    down, up = F.conv2d(x, conv.weight, stride=2, padding=1), F.conv_transpose2d(y, conv.weight, stride=2, padding=1)
    torch.testing.assert_close((y * down).sum(), (up * x).sum(), rtol=1e-12, atol=1e-12)


def test_a_transposed_convolution_reaches_every_inner_pixel_equally_often():
    (layer,) = (m for m in conv_decoder(2, [1], 8, seeded(1)) if isinstance(m, nn.ConvTranspose2d))
    counts = F.conv_transpose2d(torch.ones(1, 1, 4, 4), torch.ones_like(layer.weight), stride=2, padding=1)
    assert (counts[..., 1:-1, 1:-1] == 4).all()  # as many as its start divides by


def test_one_seed_makes_one_network_within_its_bounds():
    for make in (lambda rng: conv_encoder(8, [16, 32], 4, rng), lambda rng: conv_decoder(4, [32, 16], 8, rng)):
        one, same, other = (make(seeded(k)).state_dict() for k in (1, 1, 2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not any(torch.equal(one[name], other[name]) for name in one)
    layer = conv_encoder(8, [16, 32], 4, seeded(3))[3]
    bound = 1 / math.sqrt(16 * 16)
    assert 0.98 * bound < layer.weight.abs().max() <= bound
    assert 0.9 < layer.weight.std() / (bound / math.sqrt(3)) < 1.1
    layer = conv_decoder(4, [32, 16], 8, seeded(3))[3]
    assert 0.98 / math.sqrt(4 * 32) < layer.weight.abs().max() <= 1 / math.sqrt(4 * 32)


@pytest.mark.parametrize("likelihood", [Bernoulli(), PixelGaussian()])
def test_they_stand_in_for_the_networks_of_a_vae(likelihood, dtype):
    rng, maps = seeded(4), 2 if isinstance(likelihood, PixelGaussian) else 1
    encoder = Encoder(conv_encoder(8, [4, 8], 6, rng, dtype=dtype))
    decoder = Decoder(conv_decoder(3, [8, 4], 8, rng, maps=maps, dtype=dtype), likelihood)
    vae = VAE(encoder, decoder, StandardNormal(3, dtype))
    x = (torch.rand(5, 64, generator=rng) < 0.5).to(dtype)
    bound = vae.elbo(x, 3, rng)
    bound.value.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vae.parameters())
    assert vae.sample(2, rng).shape == (2, 64)


@pytest.mark.parametrize(
    ("side", "channels", "words"),
    [
        (9, [4], "side is 9; with 1 halvings"),
        (28, [4, 4, 4], "multiple of 8"),
        (8, [], "at least one"),
        (8, [0], "above zero"),
    ],
)
def test_what_cannot_be_halved_is_refused(side, channels, words):
    with pytest.raises(ValueError, match=words):
        conv_encoder(side, channels, 4, seeded(1))
    with pytest.raises(ValueError, match=words):
        conv_decoder(4, channels, side, seeded(1))
