"""The gate of the chapter: a VAE on binary digits, fixed steps, the step chosen on validation, the test part once."""

import copy
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lecturecode import seeded
from lecturecode.data import digits
from lecturecode.nn import mlp
from lecturecode.training import Batches, adam, fit
from lecturecode.vae import VAE, Bernoulli, Decoder, Encoder, StandardNormal, iwae

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "vae" / "variational-autoencoder.md"
STEPS, EVERY, GATE = 5000, 250, -18.5


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the chapter: the layers are small, and one thread repeats the same digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def elbo(model, x, draws):
    with torch.no_grad():
        return model.elbo(x, draws, seeded(0)).value


@pytest.fixture(scope="module")
def trained():
    training, validation = digits("training").binary, digits("validation").binary
    rng = seeded(7)
    model = VAE(Encoder(mlp([64, 256, 16], rng)), Decoder(mlp([8, 256, 64], rng), Bernoulli()), StandardNormal(8))
    best = -float("inf")
    for step in fit(partial(model.loss, rng=rng), Batches(training, 64, rng, steps=STEPS), adam(model, 1e-3)):
        if step.number % EVERY == 0 and (value := elbo(model, validation, 8).mean()) > best:
            best, weights = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return model


@pytest.fixture(scope="module")
def independent():
    """log p(x) of each test image under independent pixels with the frequencies of the training part."""
    training, test = digits("training").binary, digits("test").binary
    frequency = (training.sum(0) + 1) / (len(training) + 2)
    return torch.where(test == 1, frequency, 1 - frequency).log().sum(-1)


def test_elbo_of_the_test_digits_passes_the_gate(trained):
    values = elbo(trained, digits("test").binary, 32)
    error = values.std() / len(values) ** 0.5
    assert len(values) == 297
    assert values.mean() + error >= GATE


def test_independent_pixels_are_where_they_were_found(independent, trained):
    assert float(independent.mean()) == pytest.approx(-25.15, abs=0.02)
    assert elbo(trained, digits("test").binary, 32).mean() > independent.mean() + 6


def test_more_draws_tighten_the_bound(trained):
    """Measured rises: about 0.5 nats from K = 1 to 8 and 0.2 to 64; the error of a paired difference is below 0.06."""
    with torch.no_grad():
        bounds = [iwae(trained, digits("test").binary, draws, seeded(8)).mean() for draws in (1, 8, 64)]
    assert bounds[0] + 0.2 < bounds[1] < bounds[2] - 0.05


def test_validation_was_not_trained_on():
    images = [{tuple(row) for row in digits(part).levels.tolist()} for part in ("training", "validation", "test")]
    assert len(images[0] | images[1] | images[2]) == sum(len(part) for part in images) == 1797


def plain_torch():
    """PlainVAE and plain_loss as the chapter's cells define them."""
    cells = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```", CHAPTER.read_text(encoding="utf-8"), re.M | re.S)
    names: dict[str, Any] = {"torch": torch, "nn": nn}
    for cell in cells:
        if re.search(r"^(def affine|class PlainVAE|def plain_loss)\b", cell, re.M):
            exec(cell, names)
    return names["PlainVAE"], names["plain_loss"]


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_plain_torch_and_the_package_give_one_loss(kind, tolerance):
    """Same weights, same noise: the loss and every gradient, on all 1,200 training digits."""
    PlainVAE, plain_loss = plain_torch()
    plain = PlainVAE(64, 32, 3, seeded(1)).to(kind)
    packaged = VAE(Encoder(plain.encode), Decoder(plain.decode, Bernoulli()), StandardNormal(3, kind))
    x = digits("training").binary.to(kind)
    ours = plain_loss(plain, x, torch.randn(len(x), 3, generator=seeded(2), dtype=kind))
    theirs = packaged.loss(x, seeded(2))
    torch.testing.assert_close(theirs, ours, rtol=tolerance, atol=0)
    gradients = [torch.autograd.grad(loss, list(plain.parameters())) for loss in (theirs, ours)]
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=tolerance * 10)
