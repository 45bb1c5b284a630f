"""The U-Net: its sizes, its skips, what it sees, its start, its door."""

# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false

import pytest
import torch

from lecturecode import seeded
from lecturecode.diffusion import VELOCITY, Denoiser, VariancePreserving
from lecturecode.nn import UNet

f64 = torch.float64


def stirred(side, channels, classes=0, seed=1):
    """A network whose last convolution is drawn too, in float64."""
    net = UNet(side, channels, seeded(seed), classes, dtype=f64)
    with torch.no_grad():
        for p in net.last.parameters():
            p.copy_(torch.randn(p.shape, generator=seeded(seed + 1), dtype=f64))
    return net


def pictures(side, count=2, seed=3):
    return torch.randn(count, side**2, generator=seeded(seed), dtype=f64)


def level(value, count=2):
    return torch.full((count,), value, dtype=f64)


@pytest.mark.parametrize(
    ("side", "channels", "passed"),
    [(8, [4, 6], [8, 4, 8]), (8, [4, 6, 8], [8, 4, 2, 4, 8]), (28, [2, 3, 4], [28, 14, 7, 14, 28]), (5, [4], [5])],
)
def test_images_go_down_and_up_again(side, channels, passed):
    net, seen = stirred(side, channels), []
    for block in (*net.down, net.middle, *net.up):
        block.register_forward_hook(lambda module, given, found: seen.append(found.shape[-1]))
    assert net(pictures(side), level(0.0)).shape == (2, side**2)
    assert seen == passed


def test_the_answer_starts_as_zero(dtype):
    net = UNet(8, [4, 8], seeded(1), classes=2, dtype=dtype)
    answer = net(pictures(8).to(dtype), level(0.0).to(dtype), torch.tensor([0, 2]))
    assert answer.dtype == dtype
    assert (answer == 0).all()


def test_each_skip_carries_something():
    """Without the maps of one skip the answer is another one; with all of them it is the network's own."""
    net, x = stirred(8, [4, 6, 8]), pictures(8)
    whole = net(x, level(0.0))
    for k, block in enumerate(net.up):
        half = block.norm1.num_channels // 2

        def without(module, given, half=half):
            maps, c = given
            return torch.cat([maps[:, :half], torch.zeros_like(maps[:, half:])], 1), c

        hook = block.register_forward_pre_hook(without)
        changed = net(x, level(0.0))
        hook.remove()
        assert (changed - whole).norm() > 0.01 * whole.norm(), f"skip {k}"
    assert torch.equal(net(x, level(0.0)), whole)


def test_a_skip_brings_its_own_maps():
    """The second half of what an upper block is given is what the lower block of that size gave."""
    net, down, up = stirred(8, [4, 6, 8]), [], []
    for block in net.down:
        block.register_forward_hook(lambda module, given, found: down.append(found))
    for block in net.up:
        block.register_forward_pre_hook(lambda module, given: up.append(given[0]))
    net(pictures(8), level(0.0))
    for lower, upper in zip(down, reversed(up), strict=True):
        assert torch.equal(upper[:, upper.shape[1] // 2 :], lower)


def test_with_the_skips_cut_the_small_maps_still_carry_something():
    net, x = stirred(8, [4, 6]), pictures(8).requires_grad_()
    cut = []
    net.down[0].register_forward_hook(lambda module, given, found: cut.append(found))
    answer = net(x, level(0.0))
    through_both = torch.autograd.grad(answer.sum(), x, retain_graph=True)[0]
    through_down = torch.autograd.grad(net.shrink[0](cut[0]).sum(), x)[0]
    assert through_both.abs().min() > 0
    assert through_down.abs().min() > 0


def test_every_pixel_sees_every_pixel():
    """The receptive field, without the group norms, which look at a whole map anyway."""
    net, x = stirred(16, [4, 4, 4]), pictures(16, 1).requires_grad_()
    for module in net.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda maps: maps
    corner = net(x, level(0.0, 1)).reshape(16, 16)[0, 0]
    (slopes,) = torch.autograd.grad(corner, x)
    assert (slopes != 0).all()


def test_a_network_without_halvings_sees_only_its_neighbours():
    net, x = stirred(16, [4]), pictures(16, 1).requires_grad_()
    for module in net.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda maps: maps
    corner = net(x, level(0.0, 1)).reshape(16, 16)[0, 0]
    (slopes,) = torch.autograd.grad(corner, x)
    seen = slopes.reshape(16, 16) != 0  # four 3×3 convolutions reach four pixels far
    assert seen[:5, :5].all()
    assert not seen[5:].any()
    assert not seen[:, 5:].any()


@pytest.mark.parametrize("value", [-20.0, -6.0, 0.0, 6.0, 19.0])
def test_the_level_changes_the_answer_everywhere(value):
    net, x = stirred(8, [8, 8]), pictures(8)
    here, there = net(x, level(value)), net(x, level(value + 1))
    assert (here - there).norm() > 0.005 * here.norm()


def test_each_label_has_its_own_answer():
    net, x = stirred(8, [8, 8], classes=3), pictures(8, 1).expand(4, -1)
    answers = net(x, level(0.0, 4), torch.arange(4))
    assert (torch.cdist(answers, answers) + torch.eye(4)).min() > 1e-3


def test_rows_do_not_see_each_other():
    net, x = stirred(8, [8, 8]), pictures(8, 3)
    torch.testing.assert_close(net(x, level(1.0, 3))[1:2], net(x[1:2], level(1.0, 1)), rtol=1e-10, atol=1e-12)


def test_one_seed_makes_one_network():
    one, same, other = (UNet(8, [4, 8], seeded(k), classes=2).state_dict() for k in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = [name for name in one if "norm" not in name and not name.startswith("last.")]
    assert len(drawn) > 20
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


def test_every_parameter_learns():
    rng = seeded(1)
    model = Denoiser(UNet(8, [4, 8], rng, classes=2), VariancePreserving(), VELOCITY, classes=2, drop=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # in the first step the zeros of the last layer let nothing through
        optimizer.zero_grad()
        model.loss((pictures(8, 16).float(), torch.tensor([0, 1] * 8)), rng).backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("side", "channels", "words"),
    [(9, [4, 4], "side is 9; with 1 halvings"), (28, [4] * 4, "multiple of 8"), (8, [], "at least one width"),
     (8, [4, 0], "all above zero"), (0, [4], "side is 0"), (8, [8] * 4, "leave one pixel")],
)  # fmt: skip
def test_what_cannot_be_halved_is_refused(side, channels, words):
    with pytest.raises(ValueError, match=words):
        UNet(side, channels, seeded(1))


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"x has shape \(2, 9\), not \(any, 64\)"):
        UNet(8, [4], seeded(1))(torch.zeros(2, 9), torch.zeros(2))


def test_the_condition_scales_the_second_norm():
    block = UNet(8, [8, 8], seeded(0), dtype=f64).middle
    maps, c = torch.randn(1, 8, 4, 4, dtype=f64, generator=seeded(1)), torch.ones(1, 64, dtype=f64)
    with torch.no_grad():
        block.film.weight.zero_()
        block.film.bias.zero_()
        block.film.bias[:8] = -1.0  # 1 + s = 0 leaves the shift alone, which is 0
        torch.testing.assert_close(block(maps, c), maps + block.conv2.bias[:, None, None], rtol=0, atol=1e-14)


def test_an_up_convolution_starts_by_the_numbers_that_enter_an_output():
    (grow,) = UNet(8, [32, 64], seeded(0)).grow
    bound = (64 * 2 * 2) ** -0.5  # of 4×4 weights at stride 2, 2×2 meet an output
    assert 0.99 * bound < grow.weight.abs().max() <= bound
