"""Nothing in the loop reads a number back: every operation that would make an accelerator wait is refused here."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lecturecode import checks, seeded
from lecturecode.data import digits
from lecturecode.nn import mlp
from lecturecode.training import Batches, Ema, adam, fit
from lecturecode.vae import VAE, Bernoulli, Decoder, Encoder, Gaussian, StandardNormal

WAITS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "_unique2"}


class NoWaiting(TorchDispatchMode):
    """Refuses operations whose result the host must know before it can go on."""

    def __init__(self):
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen.add(name)
        if name in WAITS:
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
    """The package reads values only where that is free, so it is told that it is not."""
    monkeypatch.setattr(checks, "is_free", lambda x: False)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(0.5, learned=True)], ids=["Bernoulli", "Gaussian"])
def test_no_step_waits(as_on_an_accelerator, likelihood):
    rng = seeded(1)
    model = VAE(Encoder(mlp([64, 16, 4], rng)), Decoder(mlp([2, 16, 64], rng), likelihood), StandardNormal(2))
    optimizer, ema = adam(model), Ema(model)
    batches = Batches(digits("test").binary, 100, rng, steps=9)  # four epochs and a part of one
    with NoWaiting() as mode:
        steps = fit(partial(model.loss, rng=rng), batches, optimizer)
        for _ in range(9):
            last = next(steps)
            ema.update()
    assert {"_fused_adam_", "randperm", "randn", "index_select"} <= {name.removesuffix("_out") for name in mode.seen}
    assert last.value > 0


def test_reading_a_step_is_what_waits(as_on_an_accelerator):
    model = mlp([2, 1], seeded(1))
    step = next(fit(lambda x: model(x).square().mean(), [torch.ones(3, 2)], adam(model)))
    with NoWaiting(), pytest.raises(AssertionError, match="_local_scalar_dense waits for the device"):
        _ = step.value


def test_a_graph_is_refused_on_the_cpu():
    model = mlp([2, 1], seeded(1))
    with pytest.raises(ValueError, match=r"a CUDA graph needs CUDA, and the parameters of this step: cpu"):
        fit(lambda x: model(x).square().mean(), [torch.ones(3, 2)], adam(model), graph=seeded(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a graph needs a CUDA device")
def test_a_graph_takes_the_same_steps():
    """Runs where there is a CUDA device only."""

    def trained(graph: bool) -> torch.Tensor:
        rng, start = seeded(1, "cuda"), seeded(1)
        x = digits("training").binary.cuda()
        encoder, decoder = Encoder(mlp([64, 32, 4], start)), Decoder(mlp([2, 32, 64], start), Bernoulli())
        model = VAE(encoder, decoder, StandardNormal(2)).cuda()
        optimizer = adam(model)
        batches = Batches(x, 100, start, steps=30)
        for _ in fit(partial(model.loss, rng=rng), batches, optimizer, graph=rng if graph else None):
            pass
        return optimizer.param_groups[0]["params"][0].detach()

    torch.testing.assert_close(trained(True), trained(False), rtol=1e-5, atol=1e-6)
