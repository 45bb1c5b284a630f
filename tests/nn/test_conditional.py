"""The network that is told a level and a label: against its formula, and at its door."""

# pyright: reportCallIssue=false, reportOperatorIssue=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

import pytest
import torch
from torch.nn.functional import silu

from lecturecode import seeded
from lecturecode.diffusion import EDM, Denoiser, preconditioned
from lecturecode.nn import ConditionalMLP, linear, zeroed

f64 = torch.float64


def stirred(net, seed=5):
    """The same network with its last layer drawn too, so that something comes out."""
    with torch.no_grad():
        for p in net.last.parameters():
            p.copy_(torch.randn(p.shape, generator=seeded(seed), dtype=p.dtype))
    return net


def test_zeroed_sets_every_parameter_to_zero():
    layer = zeroed(linear(3, 2, seeded(1)))
    assert all((p == 0).all() and p.requires_grad for p in layer.parameters())


def test_the_answer_starts_as_zero_and_learns():
    net, x = ConditionalMLP(4, 8, seeded(1), classes=2), torch.randn(3, 4, generator=seeded(2))
    answer = net(x, torch.zeros(3), torch.tensor([0, 1, 2]))
    assert (answer == 0).all()
    (answer - x).square().sum().backward()
    assert net.last.weight.grad is not None
    assert net.last.weight.grad.abs().max() > 0


def test_against_its_formula(dtype):
    net = stirred(ConditionalMLP(3, 4, seeded(1), layers=2, classes=2, condition=5, dtype=dtype))
    x, level = torch.randn(6, 3, generator=seeded(2), dtype=dtype), torch.linspace(-20, 20, 6, dtype=dtype)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    c = net.condition(level, labels)
    h = x @ net.first.weight.mT + net.first.bias
    film = c @ net.film.weight.mT + net.film.bias
    for i in range(2):
        layer = net.layers[i]
        scale, shift = film[:, 8 * i : 8 * i + 4], film[:, 8 * i + 4 : 8 * i + 8]
        h = h + silu((1 + scale) * (h @ layer.weight.mT + layer.bias) + shift)
    expected = h @ net.last.weight.mT + net.last.bias
    torch.testing.assert_close(
        net(x, level, labels), expected, rtol=1e-4 if dtype == torch.float32 else 1e-12, atol=1e-6
    )


@pytest.mark.parametrize("level", [-20.0, -6.0, 0.0, 6.0, 19.0])
def test_the_level_changes_the_answer_everywhere(level):
    """A step of one in λ moves the answer by more than a hundredth of it, at either end of the range too."""
    net = stirred(ConditionalMLP(4, 64, seeded(1), dtype=f64))
    x = torch.randn(8, 4, generator=seeded(2), dtype=f64)
    here, there = (net(x, torch.full((8,), v, dtype=f64)) for v in (level, level + 1))
    assert (here - there).norm() > 0.01 * here.norm()


def test_each_label_has_its_own_answer():
    net, x = stirred(ConditionalMLP(4, 32, seeded(1), classes=3, dtype=f64)), torch.ones(4, 4, dtype=f64)
    answers = net(x, torch.zeros(4, dtype=f64), torch.arange(4))
    assert (torch.cdist(answers, answers) + torch.eye(4)).min() > 1e-3


def test_rows_do_not_see_each_other():
    net, x = stirred(ConditionalMLP(4, 8, seeded(1), dtype=f64)), torch.randn(5, 4, generator=seeded(2), dtype=f64)
    level = torch.linspace(-3, 3, 5, dtype=f64)
    torch.testing.assert_close(net(x, level)[2:3], net(x[2:3], level[2:3]), rtol=1e-12, atol=1e-13)


def test_one_seed_makes_one_network():
    one, same, other = (ConditionalMLP(3, 4, seeded(k), classes=2).state_dict() for k in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if not name.startswith("last."))


def test_a_denoiser_of_it_trains():
    rng = seeded(1)
    model = Denoiser(ConditionalMLP(4, 8, rng, classes=2), EDM(10.0), preconditioned(0.5), classes=2)
    model.loss((torch.randn(6, 4, generator=rng), torch.tensor([0, 1] * 3)), rng).backward()
    assert model.net.last.weight.grad.abs().max() > 0


@pytest.mark.parametrize("wrong", [{"inputs": 0}, {"width": 0}, {"layers": 0}])
def test_sizes_that_are_refused(wrong):
    with pytest.raises(ValueError, match="give at least one of each"):
        ConditionalMLP(**({"inputs": 2, "width": 4, "rng": seeded(1)} | wrong))


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\), not \(any, 4\)"):
        ConditionalMLP(4, 8, seeded(1))(torch.zeros(2, 5), torch.zeros(2))
