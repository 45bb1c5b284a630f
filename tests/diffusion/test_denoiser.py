"""Denoisers from networks: what the network is shown, what its loss is, what guidance mixes."""

import pytest
import torch
from torch import nn

from lecturecode import seeded
from lecturecode.diffusion import (
    CLEAN,
    EDM,
    FLOW,
    NOISE,
    SCORE,
    VELOCITY,
    Denoise,
    Denoiser,
    Given,
    Guided,
    Linear,
    Straight,
    VariancePreserving,
    min_snr,
    preconditioned,
    simple,
)

F64 = torch.float64
KINDS = {"clean": CLEAN, "noise": NOISE, "score": SCORE, "velocity": VELOCITY, "edm": preconditioned(0.7)}


class Line(nn.Module):
    """y = w x + c(level, label): remembers what it was shown."""

    def __init__(self, classes=0, dtype=F64):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3, dtype=dtype))
        self.offset = torch.arange(classes + 1.0, dtype=dtype)
        self.shown = []

    def forward(self, x, level, labels=None):
        self.shown.append((x, level, labels))
        y = self.weight * x + 0.1 * level[:, None]
        return y if labels is None else y + self.offset.to(x)[labels][:, None]


def fixed(t):
    """Every row at one time."""
    return lambda schedule, count, rng, like: torch.full((count,), t, dtype=like.dtype, device=like.device)


@pytest.mark.parametrize("name", KINDS)
def test_the_answer_becomes_x0(name, device, dtype):
    schedule, kind = VariancePreserving(), KINDS[name]
    net = Line(dtype=dtype).to(device)
    denoiser = Denoiser(net, schedule, kind)
    assert isinstance(denoiser, Denoise)
    xt = torch.randn(5, 2, generator=seeded(0), dtype=dtype).to(device)
    t = torch.linspace(0.2, 0.9, 5, dtype=dtype, device=device)
    found = denoiser(xt, t)
    alpha, sigma = (v[:, None] for v in schedule(t))
    x, level, _ = net.shown[0]
    torch.testing.assert_close(x, xt * kind.scale(alpha, sigma))
    torch.testing.assert_close(level, (2 * (alpha / sigma).log())[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kind.of(found, xt, alpha, sigma), 0.3 * x + 0.1 * level[:, None], rtol=1e-3, atol=1e-4)
    assert found.dtype == dtype
    torch.testing.assert_close(denoiser(xt[:1], 0.2), found[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_by_hand(name):
    """Draws are repeated from a generator with the same seed; the mean is over rows and entries."""
    schedule, kind = VariancePreserving(), KINDS[name]
    x0 = torch.randn(6, 3, generator=seeded(1), dtype=F64)
    eps = torch.randn(6, 3, generator=seeded(2), dtype=F64)
    alpha, sigma = (v.item() for v in schedule(0.4))
    xt, a, s = alpha * x0 + sigma * eps, torch.tensor(alpha, dtype=F64), torch.tensor(sigma, dtype=F64)
    plain = Denoiser(Line(), schedule, kind, times=fixed(0.4))
    target = (kind.target(x0, eps, a, s) - 0.3 * xt * kind.scale(a, s) - 0.1 * schedule.log_snr(0.4)).square().mean()
    torch.testing.assert_close(plain.loss(x0, seeded(2)), target)
    for weighting in (simple, min_snr(2.0)):
        weighted = Denoiser(Line(), schedule, kind, weighting, fixed(0.4))
        error = (x0 - plain(xt, 0.4)).square().mean()
        torch.testing.assert_close(weighted.loss(x0, seeded(2)), weighting(a, s) * error)


def test_weighting_by_the_snr_is_the_error_of_the_noise():
    x0 = torch.randn(6, 3, generator=seeded(1), dtype=F64)
    noise = Denoiser(Line(), VariancePreserving(), NOISE)
    weighted = Denoiser(Line(), VariancePreserving(), NOISE, simple)
    torch.testing.assert_close(noise.loss(x0, seeded(4)), weighted.loss(x0, seeded(4)))


def test_a_network_is_told_no_difference_beyond_its_reach():
    net = Line()
    denoiser = Denoiser(net, EDM(1e6), CLEAN)
    for t, level in ((1e-9, 20.0), (1e6, -20.0), (1.0, 0.0)):
        denoiser(torch.zeros(1, 1, dtype=F64), t)
        assert net.shown[-1][1].item() == level


def test_a_level_of_its_own():
    """One number for all rows or one for each, in the dtype of x; and it is the clock of the loss, too."""
    net = Line(dtype=torch.float32)
    denoiser = Denoiser(net, Straight(), FLOW, times=fixed(0.25), level=lambda schedule, t: 20 - 40 * t / schedule.end)
    x = torch.randn(3, 2, generator=seeded(3))
    for t, shown in ((0.5, [0.0, 0.0, 0.0]), (torch.tensor([0.0, 0.25, 1.0]), [20.0, 10.0, -20.0])):
        denoiser(x, t)
        torch.testing.assert_close(net.shown[-1][1], torch.tensor(shown))
    denoiser.loss(x, seeded(4))
    torch.testing.assert_close(net.shown[-1][1], torch.full((3,), 10.0))
    wrong = Denoiser(net, Straight(), FLOW, level=lambda schedule, t: torch.ones(2))
    with pytest.raises(ValueError, match=r"level gives shape \(2,\) for t of \(\)"):
        wrong(x, 0.5)


def test_labels_are_dropped_with_their_share():
    net = Line(classes=3)
    denoiser = Denoiser(net, VariancePreserving(), classes=3, drop=0.25)
    x0, labels = torch.zeros(4000, 1, dtype=F64), torch.arange(4000) % 3
    denoiser.loss((x0, labels), seeded(5))
    seen = net.shown[-1][2]
    dropped = (seen == 3).double().mean().item()
    assert abs(dropped - 0.25) < 5 * (0.25 * 0.75 / 4000) ** 0.5  # 5 standard errors
    assert torch.equal(seen[seen < 3], labels[seen < 3])
    denoiser(x0[:2], 0.5)
    assert net.shown[-1][2].tolist() == [3, 3]


def test_given_and_guided_mix_answers():
    denoiser = Denoiser(Line(classes=3), VariancePreserving(), CLEAN, classes=3)
    xt = torch.randn(4, 2, generator=seeded(6), dtype=F64)
    one, rows = Given(denoiser, 2), Given(denoiser, torch.tensor([0, 1, 2, 0]))
    bare = 0.3 * xt + 0.1 * VariancePreserving().log_snr(0.5)
    torch.testing.assert_close(one(xt, 0.5), bare + 2)
    torch.testing.assert_close(rows(xt, 0.5), bare + torch.tensor([[0.0], [1], [2], [0]]))
    torch.testing.assert_close(Guided(one, denoiser, 3.0)(xt, 0.5), bare + 3 + 3 * (2 - 3))
    torch.testing.assert_close(Guided(one, denoiser, 0.0)(xt, 0.5), denoiser(xt, 0.5))
    torch.testing.assert_close(Guided(one, denoiser, 1.0)(xt, 0.5), one(xt, 0.5))
    assert isinstance(one, Denoise)
    assert isinstance(Guided(one, denoiser, 1.0), Denoise)


def test_bad_input_is_refused():
    zero = Linear(10).zero_terminal()
    for kind in (NOISE, SCORE):
        with pytest.raises(ValueError, match="predict CLEAN or VELOCITY"):
            Denoiser(Line(), zero, kind)
    Denoiser(Line(), zero, VELOCITY)
    with pytest.raises(ValueError, match="drop"):
        Denoiser(Line(), zero, drop=1.0)
    plain = Denoiser(Line(), VariancePreserving())
    with pytest.raises(ValueError, match="one row an example"):
        plain.loss(torch.zeros(3, dtype=F64), seeded(0))
    with pytest.raises(ValueError, match="give floats"):
        plain.loss(torch.zeros(3, 2, dtype=torch.int64), seeded(0))
    with pytest.raises(ValueError, match="without classes"):
        plain.loss((torch.zeros(3, 2, dtype=F64), torch.zeros(3, dtype=torch.int64)), seeded(0))
    classes = Denoiser(Line(classes=2), VariancePreserving(), classes=2)
    with pytest.raises(ValueError, match="the label 2 is none of the 2 classes"):
        Given(classes, 2)
    with pytest.raises(ValueError, match="the label -1"):
        Given(classes, torch.tensor([0, -1]))
    with pytest.raises(ValueError, match="different schedules"):
        Guided(Given(classes, 0), Denoiser(Line(), EDM()), 2.0)

    class Wide(nn.Module):
        def forward(self, x, level):
            return torch.cat([x, x], 1)

    with pytest.raises(ValueError, match=r"the network gives shape \(3, 4\)"):
        Denoiser(Wide(), EDM())(torch.zeros(3, 2), 1.0)
