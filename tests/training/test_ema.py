"""The average against its closed form, in place, on the flat vector; validation, early stop."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

import math

import pytest
import torch
from torch import nn

from lecturecode import seeded
from lecturecode.nn import mlp
from lecturecode.training import Best, Ema, adam, mean_score
from lecturecode.training.ema import flat


def net(dtype=torch.float64):
    return mlp([3, 4, 2], seeded(1), dtype=dtype)


def walk(model, count):
    """`count` random positions of the weights, as one vector each."""
    rng, seen = seeded(2), []
    for _ in range(count):
        for p in model.parameters():
            p.data.copy_(torch.randn(p.shape, generator=rng, dtype=p.dtype))
        seen.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        yield seen


def vector(ema):
    return torch.cat([a.flatten() for a in ema.average])


@pytest.mark.parametrize("flattened", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
def test_the_average_is_the_closed_form_at_each_step(decay, flattened):
    model = net()
    if flattened:
        adam(model)
    ema = Ema(model, decay)
    assert len(ema.average) == (1 if flattened else 4)
    for seen in walk(model, 7):
        ema.update()
        k = len(seen)
        weights = [(1 - decay) * decay ** (k - j) / (1 - decay**k) for j in range(1, k + 1)]
        assert sum(weights) == pytest.approx(1, rel=1e-12)
        wanted = sum(w * theta for w, theta in zip(weights, seen, strict=True))
        torch.testing.assert_close(vector(ema), wanted, rtol=1e-11, atol=1e-12)
        if k == 1:
            torch.testing.assert_close(vector(ema), seen[0], rtol=1e-15, atol=0)


def test_the_average_does_not_follow_what_is_not_updated():
    model = net()
    ema = Ema(model)
    before = vector(ema).clone()
    model[0].weight.data.zero_()
    assert torch.equal(vector(ema), before)


@pytest.mark.parametrize("flattened", [False, True])
def test_the_averaged_weights_inside_and_the_own_ones_after(flattened):
    model = net()
    if flattened:
        adam(model)
    ema = Ema(model, 0.5)
    for _ in walk(model, 3):
        ema.update()
    own = [p.detach().clone() for p in model.parameters()]
    with ema.weights():
        inside = torch.cat([p.detach().flatten() for p in model.parameters()])
        assert torch.equal(inside, vector(ema))
    assert all(torch.equal(p, kept) for p, kept in zip(model.parameters(), own, strict=True))


def test_flat_shares_memory_and_leaves_out_what_is_frozen():
    model = net()
    assert [part.shape for part in flat(model)] == [p.shape for p in model.parameters()]
    model[0].bias.requires_grad_(False)
    assert len(flat(model)) == 3
    adam(model)
    (whole,) = flat(model)
    assert whole.numel() == 12 + 8 + 2
    whole.fill_(2.0)
    assert (model[2].weight == 2).all()
    assert not (model[0].bias == 2).any()


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_decays_that_are_refused(decay):
    with pytest.raises(ValueError, match="choose it from 0"):
        Ema(net(), decay)


def test_models_that_are_refused():
    with pytest.raises(ValueError, match="SiLU has no parameter to average"):
        Ema(nn.SiLU())
    other = Ema(mlp([2, 2], seeded(1)))
    with pytest.raises(ValueError, match=r"the averages have .* here and .* there"):
        other.load_state_dict(Ema(net()).state_dict())


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_the_mean_score_does_not_depend_on_the_pieces(size):
    data = torch.randn(7, 2, generator=seeded(3), dtype=torch.float64).requires_grad_()
    score = mean_score(lambda rows: rows.square().sum(-1), data, size)
    assert not score.requires_grad
    torch.testing.assert_close(score, data.detach().square().sum(-1).mean(), rtol=1e-14, atol=0)


def test_scores_that_are_refused():
    with pytest.raises(ValueError, match="0 rows in pieces of 1024; pass at least one row"):
        mean_score(lambda rows: rows, torch.zeros(0))
    with pytest.raises(ValueError, match=r"the score of 3 rows has shape \(\); give one number a row"):
        mean_score(lambda rows: rows.mean(), torch.zeros(3, 2))


def test_best_keeps_the_best_and_stops_after_patience():
    model = net()
    optimizer = adam(model)
    best = Best(model, patience=2)
    kept, verdicts, stops = None, [], []
    for seen, score in zip(walk(model, 6), [1.0, 3.0, 2.0, 4.0, 4.0, -math.inf], strict=False):
        verdicts.append(best.update(torch.tensor(score)))
        stops.append(best.stop)
        kept = seen[-1] if verdicts[-1] else kept
    assert verdicts == [True, True, False, True, False, False]
    assert stops == [False] * 5 + [True]
    best.restore()
    assert best.score == 4.0
    assert torch.equal(optimizer.param_groups[0]["params"][0].detach(), kept)


def test_best_without_patience_never_stops_and_refuses_nan():
    best = Best(net())
    for score in (2.0, *[1.0] * 50):
        best.update(score)
    assert not best.stop
    with pytest.raises(ValueError, match="the score is nan"):
        best.update(math.nan)
    with pytest.raises(ValueError, match="patience is 0"):
        Best(net(), patience=0)
