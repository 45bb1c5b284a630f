"""Networks: the function they compute, written out, and the numbers they start from."""

import math

import pytest
import torch
from torch import nn

from lecturecode import seeded
from lecturecode.nn import linear, mlp


def test_a_layer_is_its_formula(dtype):
    layer = linear(3, 2, seeded(1), dtype=dtype)
    x = torch.randn(5, 3, generator=seeded(2), dtype=dtype)
    torch.testing.assert_close(layer(x), x @ layer.weight.mT + layer.bias)
    assert layer.weight.dtype == layer.bias.dtype == dtype
    assert layer.weight.requires_grad
    assert layer.bias.requires_grad


def test_weights_and_biases_are_the_generators_uniform_draws():
    rng = torch.Generator().manual_seed(1)
    layer = linear(3, 2, seeded(1))
    for parameter in (layer.weight, layer.bias):
        drawn = torch.rand(parameter.shape, generator=rng)
        torch.testing.assert_close(parameter.detach(), (2 * drawn - 1) / math.sqrt(3))


def test_weights_fill_their_interval():
    """100,000 weights: all within ±1/√n, mean within 5 standard errors of 0, variance within 5 of 1/(3n)."""
    n, m = 100, 1000
    w = linear(n, m, seeded(3)).weight.detach().double()
    bound = 1 / math.sqrt(n)
    assert w.abs().max() <= bound
    assert abs(w.mean().item()) < 5 * bound / math.sqrt(3 * n * m)
    fourth = bound**4 / 5 - bound**4 / 9  # Var[w²] for w uniform in ±bound
    assert abs(w.square().mean().item() - bound**2 / 3) < 5 * math.sqrt(fourth / (n * m))


def test_a_perceptron_is_its_formula():
    net = mlp([3, 5, 4, 2], seeded(4), dtype=torch.float64)
    x = torch.randn(7, 3, generator=seeded(5), dtype=torch.float64)
    first, second, third = (layer for layer in net if isinstance(layer, nn.Linear))
    silu = lambda y: y / (1 + torch.exp(-y))  # noqa: E731
    by_hand = third(silu(second(silu(first(x)))))
    torch.testing.assert_close(net(x), by_hand, rtol=1e-13, atol=1e-13)
    assert [p.shape for p in net.parameters()] == [(5, 3), (5,), (4, 5), (4,), (2, 4), (2,)]


def test_activation_and_dtype_are_the_callers(dtype):
    net = mlp([2, 3, 1], seeded(6), activation=nn.Tanh, dtype=dtype)
    assert [type(layer) for layer in net] == [nn.Linear, nn.Tanh, nn.Linear]
    assert {p.dtype for p in net.parameters()} == {dtype}
    assert [type(layer) for layer in mlp([2, 3], seeded(6))] == [nn.Linear]


def test_one_seed_makes_one_network():
    one, two, other = mlp([4, 8, 2], seeded(7)), mlp([4, 8, 2], seeded(7)), mlp([4, 8, 2], seeded(8))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_moving_a_network_moves_its_answers(device):
    net, x = mlp([4, 8, 2], seeded(7)), torch.randn(3, 4, generator=seeded(1))
    here = net(x)
    there = net.to(device)(x.to(device))
    assert there.device.type == device.type
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("widths", [[], [3], [3, 0], [0, 3], [3, -1, 2]])
def test_widths_that_are_refused(widths):
    with pytest.raises(ValueError, match=r"widths is \[.*\]; give at least an input and an output width"):
        mlp(widths, seeded(0))
