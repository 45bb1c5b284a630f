"""The embedding of a noise level: its frequencies, its rank, its start, its door."""

import math

import numpy as np
import pytest
import torch

from lecturecode import seeded
from lecturecode.nn import LevelEmbedding, ladder, sinusoids

f64 = torch.float64


def rank(features, share=1e-3):
    values = torch.linalg.svdvals(features)
    return int((values > share * values[0]).sum())


def test_periods_are_a_geometric_ladder_from_longest_to_shortest():
    periods = 2 * math.pi / ladder(5, longest=32.0, shortest=2.0)
    torch.testing.assert_close(periods, torch.tensor([32.0, 16.0, 8.0, 4.0, 2.0], dtype=f64), rtol=1e-14, atol=0)


def test_sinusoids_against_numpy():
    x, frequencies = torch.tensor([0.3, -7.0], dtype=f64), ladder(3)
    angles = np.outer(x.numpy(), frequencies.numpy())
    expected = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    np.testing.assert_allclose(sinusoids(x, frequencies).numpy(), expected, rtol=0, atol=1e-15)


def test_the_ladder_on_the_log_snr_has_rank_and_the_usual_one_on_unit_time_has_not():
    usual = 1e4 ** (-torch.arange(16, dtype=f64) / 16)
    assert rank(sinusoids(torch.linspace(0, 1, 401, dtype=f64), usual)) == 3
    assert rank(sinusoids(torch.linspace(-20, 20, 401, dtype=f64), ladder(16))) == 25


def test_no_two_levels_have_the_same_features():
    """The longest period is twice the range: its cosine alone falls or its sine alone rises everywhere."""
    level = torch.linspace(-20, 20, 201, dtype=f64)
    features = sinusoids(level, ladder(16))
    assert (features[1:, 0] > features[:-1, 0]).all()
    distances = torch.cdist(features, features) + 9 * torch.eye(201, dtype=f64)
    assert distances.min() > 0.4


def test_one_seed_makes_one_embedding():
    one, same, other = (LevelEmbedding(5, seeded(k), classes=3).state_dict() for k in (1, 1, 2))
    assert set(one) == {"project.weight", "project.bias", "rows"}
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_level_and_label_both_reach_the_vector(dtype):
    embed = LevelEmbedding(6, seeded(1), classes=2, dtype=dtype)
    level, labels = torch.tensor([0.0, 0.0, 1.0], dtype=dtype), torch.tensor([0, 2, 0])
    rows = embed(level, labels)
    assert rows.dtype == dtype
    assert rows.shape == (3, 6)
    assert (rows[0] - rows[1]).abs().max() > 0.01
    assert (rows[0] - rows[2]).abs().max() > 0.01
    torch.testing.assert_close(rows[:1], embed(level[:1], labels[:1]))


@pytest.mark.parametrize(
    "arguments",
    [{"count": 1}, {"count": 4, "longest": 2.0, "shortest": 2.0}, {"count": 4, "shortest": 0.0},
     {"count": 4, "longest": math.inf}],
)  # fmt: skip
def test_ladders_that_are_refused(arguments):
    with pytest.raises(ValueError, match="periods with 0 < shortest < longest"):
        ladder(**arguments)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"features": 5}, {"features": 2}, {"classes": -1}])
def test_embeddings_that_are_refused(wrong):
    with pytest.raises(ValueError, match="an even number of features"):
        LevelEmbedding(**({"width": 4, "rng": seeded(1)} | wrong))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "labels: none, beside 2 levels; give one integer for each, 3 for no label"),
        (torch.tensor([0, 1, 2]), "labels: torch.int64 of shape"),
        (torch.tensor([0.0, 1.0]), "labels: torch.float32"),
        (torch.tensor([0, 4]), r"labels go from 0 to 4; they are 0 … 2"),
        (torch.tensor([-1, 0]), "labels go from -1 to 0"),
    ],
)
def test_labels_that_are_refused(labels, words):
    embed = LevelEmbedding(4, seeded(1), classes=3)
    with pytest.raises(ValueError, match=words):
        embed(torch.zeros(2), labels)


def test_labels_without_classes_are_refused():
    with pytest.raises(ValueError, match="without classes; make it with classes=…"):
        LevelEmbedding(4, seeded(1))(torch.zeros(2), torch.tensor([0, 1]))
