"""The loop: flat Adam equals torch's own, bad steps change nothing, and one seed trains one set of weights."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalMemberAccess=false, reportReturnType=false

import math
from functools import partial

import pytest
import torch
from torch import nn

from lecturecode import seeded
from lecturecode.data import digits
from lecturecode.nn import mlp
from lecturecode.training import Batches, Step, adam, fit
from lecturecode.vae import VAE, Bernoulli, Decoder, Encoder, StandardNormal

X = torch.randn(32, 3, generator=torch.Generator().manual_seed(1))
Y = torch.sin(X.sum(1, keepdim=True))


def net(dtype=torch.float32) -> nn.Sequential:
    return mlp([3, 8, 1], seeded(2), dtype=dtype)


def loss(model, rows):
    return (model(X.to(model[0].weight.dtype)[rows]) - Y[rows]).square().mean()


def batches(steps: int) -> list[torch.Tensor]:
    return list(Batches(torch.arange(32), 8, seeded(3), steps=steps))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- adam ------------------------------------------------------------------------------------------------------------


def test_parameters_are_views_of_one_vector(device):
    model = net().to(device)
    before = weights(model)
    optimizer = adam(model)
    (flat,) = optimizer.param_groups[0]["params"]
    assert torch.equal(flat.detach(), before)
    flat.data.mul_(2)
    assert torch.equal(weights(model), 2 * before)
    offset = 0
    for p in model.parameters():
        assert p.is_leaf
        assert p.data_ptr() == flat.data_ptr() + offset * flat.element_size()
        assert p.grad.data_ptr() == flat.grad.data_ptr() + offset * flat.element_size()
        offset += p.numel()
    assert offset == flat.numel()


@pytest.mark.parametrize(
    "options",
    [{}, {"betas": (0.8, 0.99)}, {"eps": 1e-6}, {"weight_decay": 0.1}, {"amsgrad": True}],
    ids=lambda options: next(iter(options), "plain"),
)
def test_each_step_equals_torchs_own_adam(options):
    ours, theirs = net(torch.float64), net(torch.float64)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.01, **options)
    for rows, step in zip(batches(30), fit(partial(loss, ours), batches(30), adam(ours, 0.01, **options)), strict=True):
        optimizer.zero_grad()
        value = loss(theirs, rows)
        value.backward()
        optimizer.step()
        assert step.value == pytest.approx(value.item(), rel=1e-12)
        torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-11, atol=1e-13)


def test_what_is_frozen_stays():
    model = net()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.clone()
    free = model[2].weight.detach().clone()
    for _ in fit(partial(loss, model), batches(3), adam(model)):
        pass
    assert torch.equal(model[0].weight, frozen)
    assert not torch.equal(model[2].weight, free)


def test_shared_parameters_are_counted_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    (flat,) = adam(model).param_groups[0]["params"]
    assert flat.numel() == 9 + 3 + 3
    assert model[1].weight is model[0].weight


def test_a_state_saved_before_is_loaded_into_the_views():
    saved = {name: tensor.clone() for name, tensor in net().state_dict().items()}
    model = net()
    optimizer = adam(model, 0.1)
    for _ in fit(partial(loss, model), batches(2), optimizer):
        pass
    model.load_state_dict(saved)
    (flat,) = optimizer.param_groups[0]["params"]
    assert torch.equal(flat.detach(), weights(net()))
    other = net()
    other.load_state_dict(model.state_dict())
    assert torch.equal(weights(other), weights(net()))


@pytest.mark.parametrize("lr", [0.0, -1e-3, math.nan, math.inf])
def test_learning_rates_that_are_refused(lr):
    with pytest.raises(ValueError, match=rf"lr is {lr}; a learning rate is finite and above zero"):
        adam(net(), lr)


def test_models_that_are_refused():
    with pytest.raises(ValueError, match="SiLU has no parameter to train; set requires_grad or add a network"):
        adam(nn.SiLU())
    with pytest.raises(ValueError, match="Linear has no parameter to train"):
        adam(nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(ValueError, match=r"spread over .*float32.*float64.*; move the model to one device and dtype"):
        adam(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))
    with pytest.raises(ValueError, match=r"spread over .*cpu.*meta"):
        adam(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")))


# --- fit -------------------------------------------------------------------------------------------------------------


def test_a_step_for_each_batch():
    model = net()
    steps = list(fit(partial(loss, model), batches(5), adam(model)))
    assert [step.number for step in steps] == [1, 2, 3, 4, 5]
    for step in steps:
        assert isinstance(step.loss, torch.Tensor)
        assert not step.loss.requires_grad
        assert step.value == step.loss.item()


def test_the_loss_of_a_step_is_that_before_it():
    model = net()
    first = loss(model, batches(1)[0]).item()
    (step,) = fit(partial(loss, model), batches(1), adam(model))
    assert step.value == first


def test_nothing_is_done_until_it_is_read_and_no_more_than_that():
    model = net()
    before = weights(model)
    steps = fit(partial(loss, model), batches(5), adam(model))
    assert torch.equal(weights(model), before)
    next(steps)
    after = weights(model)
    assert not torch.equal(after, before)
    steps.close()
    assert torch.equal(weights(model), after)


def test_no_batches_no_steps():
    assert list(fit(partial(loss, net()), [], adam(net()))) == []


class Trap:
    """A loss that is spoiled at the given steps, in one of four ways."""

    def __init__(self, model, how: str, at: set[int]):
        self.model, self.how, self.at, self.step = model, how, at, 0

    def __call__(self, rows):
        self.step += 1
        value = loss(self.model, rows)
        if self.step not in self.at:
            return value
        if self.how == "nan gradient":  # finite loss, 0·∞ in its gradient
            return value + 0 * self.model[0].bias.sum().mul(0).sqrt()
        if self.how == "infinite gradient":
            return value + self.model[0].bias.sum().mul(0).sqrt()
        return value * {"nan": math.nan, "inf": math.inf}[self.how]


@pytest.mark.parametrize("how", ["nan", "inf", "nan gradient", "infinite gradient"])
def test_a_bad_step_changes_no_bit_and_later_steps_go_on(how):
    model, clean = net(), net()
    optimizer = adam(model)
    all_rows = batches(6)
    steps = fit(Trap(model, how, {3, 5}), all_rows, optimizer)
    assert next(steps).value > 0
    second = next(steps)
    held = weights(model)
    state = {k: v.clone() for k, v in optimizer.state[optimizer.param_groups[0]["params"][0]].items()}
    third = next(steps)
    assert torch.equal(weights(model), held)
    after = optimizer.state[optimizer.param_groups[0]["params"][0]]
    assert all(torch.equal(after[k], v) for k, v in state.items())
    assert second.value > 0
    with pytest.raises(FloatingPointError, match=r"not finite at step 3; no weight was changed.*lower the learning"):
        _ = third.value
    fourth = next(steps)
    assert not torch.equal(weights(model), held)
    with pytest.raises(FloatingPointError, match="at step 3"):
        _ = fourth.value
    with pytest.raises(FloatingPointError, match="at step 3"):
        list(steps)
    good = [rows for number, rows in enumerate(all_rows, start=1) if number not in {3, 5}]
    for _ in fit(partial(loss, clean), good, adam(clean)):
        pass
    assert torch.equal(weights(model), weights(clean))


def test_a_bad_last_step_is_reported_without_reading():
    model = net()
    with pytest.raises(FloatingPointError, match="at step 2"):
        for _ in fit(Trap(model, "nan", {2}), batches(2), adam(model)):
            pass


@pytest.mark.parametrize("family", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adam])
def test_other_fused_optimizers_skip_bad_steps_too(family):
    model = net()
    optimizer = family(model.parameters(), lr=0.01, fused=True)
    steps = fit(Trap(model, "nan", {2}), batches(3), optimizer)
    next(steps)
    held = weights(model)
    next(steps)
    assert torch.equal(weights(model), held)
    next(steps)
    assert not torch.equal(weights(model), held)


@pytest.mark.parametrize("family", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
def test_an_optimizer_that_is_not_fused_is_refused_before_any_work(family):
    model = net()
    with pytest.raises(ValueError, match=rf"{family.__name__} is not fused.*use lecturecode\.training\.adam"):
        fit(partial(loss, model), batches(1), family(model.parameters(), lr=0.1))


def test_a_parameter_without_gradient_is_left_alone():
    model = nn.ModuleDict({"used": nn.Linear(3, 1), "unused": nn.Linear(2, 2)})
    before = model["unused"].weight.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    for step in fit(lambda rows: model["used"](X[rows]).square().mean(), batches(3), optimizer):
        assert step.value >= 0
    assert torch.equal(model["unused"].weight, before)


def test_a_step_is_a_value():
    step = Step(1, torch.tensor(2.0), torch.tensor(0))
    assert step.value == 2.0
    with pytest.raises(AttributeError):
        step.number = 2


def test_one_seed_trains_one_set_of_weights(device):
    """A whole training of a VAE on the digits, twice: the same bits."""

    def trained(seed: int) -> torch.Tensor:
        rng = seeded(seed)
        x = digits("training").binary.to(device)
        encoder, decoder = Encoder(mlp([64, 32, 4], rng)), Decoder(mlp([2, 32, 64], rng), Bernoulli())
        vae = VAE(encoder, decoder, StandardNormal(2)).to(device)
        data = Batches(x, 100, rng, steps=30)
        for _ in fit(partial(vae.loss, rng=rng), data, adam(vae)):
            pass
        return weights(vae)

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))
