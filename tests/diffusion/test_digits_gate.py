"""The gate of the chapter on training: its own recipe, a fixed number of steps, the test part looked at here only.

Generated digits are compared with the test part in the features of a classifier, the last hidden layer (128 units) of
a perceptron trained on the training part; the floor is the training part against the test part at the same sizes,
1,200 and 297.
"""

import ast
import math
import re
from collections import deque
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lecturecode import frechet, seeded
from lecturecode.data import digits
from lecturecode.diffusion import (
    EDM,
    NOISE,
    Denoiser,
    EmpiricalDenoiser,
    Given,
    LogNormalTimes,
    VariancePreserving,
    ddim,
    karras_grid,
    noise_end,
    preconditioned,
    sample,
    uniform_grid,
)
from lecturecode.nn import ConditionalMLP, mlp
from lecturecode.rng import normal
from lecturecode.training import Batches, Ema, adam, fit

CHAPTER = Path(__file__).resolve().parents[2] / "book" / "diffusion" / "training.md"
GATE, ACCURACY, SEEDS = 1.6, 0.98, 5


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the chapter: the layers are small, and one thread repeats the same digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cells(*names, **given):
    """The functions and classes of these names as the chapter's cells define them, with `given` around them."""
    text = CHAPTER.read_text(encoding="utf-8")
    found = re.findall(r"^```\{code-cell\} ipython3\n(?:---\n.*?^---\n)?(.*?)^```", text, re.M | re.S)
    space = dict(given)
    for node in (node for cell in found for node in ast.parse(cell).body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
            exec(ast.unparse(node), space)
    return SimpleNamespace(**{name: space[name] for name in names})


@pytest.fixture(scope="module")
def recipe():
    training = digits("training")
    x, labels = 2 * training.grey - 1, training.labels.long()
    names = "train_denoiser", "draw_digits", "train_classifier", "class_gaussians"
    used = [frechet, seeded, EDM, Denoiser, Given, LogNormalTimes, ddim, karras_grid, noise_end, preconditioned, sample]
    used += [ConditionalMLP, mlp, normal, Batches, Ema, adam, fit, partial, deque]
    made = cells(*names, **{thing.__name__: thing for thing in used}, torch=torch, nn=nn, math=math, x=x, labels=labels)
    made.x, made.labels = x, labels
    made.part = lambda name: (2 * digits(name).grey - 1, digits(name).labels.long())
    return made


@pytest.fixture(scope="module")
def classifier(recipe):
    return recipe.train_classifier(2)


@pytest.fixture(scope="module")
def drawn(recipe):
    """Five sets of 1,200 digits of one model."""
    return draws(recipe, 1)


def draws(recipe, seed):
    model, ema = recipe.train_denoiser(seed)
    with ema.weights():
        return [recipe.draw_digits(model, recipe.labels, 100 * seed + k) for k in range(SEEDS)]


def verdicts(recipe, classifier, images):
    """Distance over floor, and the share found in the class asked for: one pair for each set."""
    x_test, _ = recipe.part("test")
    features = classifier[:-1]
    floor = frechet(features(recipe.x), features(x_test))
    ratios = [float(frechet(features(each), features(x_test)) / floor) for each in images]
    return ratios, [float((classifier(each).argmax(1) == recipe.labels).float().mean()) for each in images]


def nearest(images, x):
    return torch.cdist(images, x).amin(1)


def test_the_classifier_knows_digits_it_has_not_seen(recipe, classifier):
    held, labels = recipe.part("validation")
    assert (classifier(held).argmax(1) == labels).float().mean() >= 0.98
    assert classifier[:-1](held).shape == (300, 128)


def test_generated_digits_pass_the_gate(recipe, classifier, drawn):
    ratios, found = verdicts(recipe, classifier, drawn)
    assert len(ratios) == SEEDS
    assert sum(ratios) / SEEDS <= GATE
    assert sum(found) / SEEDS >= ACCURACY


def test_the_model_is_better_than_a_gaussian_for_each_class(recipe, classifier, drawn):
    """These come within the gate too, so they are what to beat: in distance and in neighbours."""
    gaussians = [recipe.class_gaussians(k) for k in range(SEEDS)]
    (ratios, found), (rivals, _) = (verdicts(recipe, classifier, images) for images in (drawn, gaussians))
    assert sum(ratios) < 0.95 * sum(rivals)
    assert sum(found) / SEEDS >= 0.985
    held, _ = recipe.part("validation")
    honest, model, rival = (nearest(images, recipe.x).median() for images in (held, drawn[0], gaussians[0]))
    assert honest < model < (honest + rival) / 2


@pytest.mark.verify
def test_five_trainings_pass_the_gate(recipe, classifier):
    rivals, _ = verdicts(recipe, classifier, [recipe.class_gaussians(k) for k in range(SEEDS)])
    for seed in range(1, 6):
        ratios, found = verdicts(recipe, classifier, draws(recipe, seed))
        print(f"seed {seed}: ratios {[f'{r:.3f}' for r in ratios]}, class found {sum(found) / SEEDS:.4f}")
        assert sum(ratios) / SEEDS <= GATE, seed
        assert sum(ratios) < sum(rivals), seed
        assert sum(found) / SEEDS >= ACCURACY, seed


def test_the_gate_can_fail(recipe, classifier):
    """Blurred training digits, and the right digits under wrong labels, do not pass."""
    maps = recipe.x.reshape(-1, 1, 8, 8)
    blurred = nn.functional.avg_pool2d(maps, 3, 1, 1, count_include_pad=False).flatten(1)
    shifted = recipe.x[torch.argsort((recipe.labels + 1) % 10)]
    ratios, found = verdicts(recipe, classifier, [blurred, shifted])
    assert ratios[0] > 2 * GATE
    assert found[1] < 0.2


def test_generated_digits_are_no_copies(recipe, drawn):
    """Below the 5 % quantile of held-out digits' distance to the training part; the exact minimiser puts all there."""
    held, _ = recipe.part("validation")
    mark = nearest(held, recipe.x).quantile(0.05)
    for images in drawn:
        assert (nearest(images, recipe.x) < mark).float().mean() < 0.05
    copier = EmpiricalDenoiser(recipe.x, EDM(20.0))
    noise = noise_end(copier.schedule, (100, 64), recipe.x).sample(seeded(1))
    copies = sample(copier, ddim, noise, karras_grid(copier.schedule, 40, low=0.01))
    assert (nearest(copies, recipe.x) < mark).all()


def test_a_training_is_repeated_bit_for_bit(recipe):
    one, other = (recipe.train_denoiser(3, steps=20)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def plain():
    """The chapter's plain torch."""
    names = "plain_levels", "affine", "PlainNet", "plain_loss", "plain_sample", "plain_times"
    return cells(*names, torch=torch, nn=nn, math=math, pairwise=pairwise)


def test_plain_torch_and_the_package_give_one_loss(plain):
    """Same weights, same times, same noise: the loss and every gradient, in float32."""
    net, x0 = plain.PlainNet(32, seeded(1)), torch.randn(64, 2, generator=seeded(2))
    model = Denoiser(net, VariancePreserving(), NOISE, times=plain.plain_times)
    ours, theirs = plain.plain_loss(net, x0, seeded(3)), model.loss(x0, seeded(3))
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=0)
    gradients = [torch.autograd.grad(loss, list(net.parameters())) for loss in (theirs, ours)]
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5)


def test_plain_torch_and_the_package_sample_alike(plain):
    net, start = plain.PlainNet(32, seeded(1)), torch.randn(8, 2, generator=seeded(4))
    model = Denoiser(net, VariancePreserving(), NOISE)
    one = plain.plain_sample(net, start, 10)
    other = sample(model, ddim, start, uniform_grid(model.schedule, 10))
    torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)
