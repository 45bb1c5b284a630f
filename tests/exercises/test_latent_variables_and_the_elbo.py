"""The exercises of book/vae/latent-variables-and-the-elbo.md: every number of their answers, computed anew."""

import math
import tomllib
from functools import partial
from pathlib import Path

import pytest
import torch
from scipy import optimize

from lecturecode import exercises

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = tomllib.loads((ROOT / "lecturecode/answers/latent_variables_and_the_elbo.toml").read_text("utf-8"))

prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
red = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
x = torch.arange(4, dtype=torch.float64)
likelihood = torch.distributions.Binomial(3, red[:, None]).log_prob(x).exp()
joint = prior[:, None] * likelihood
evidence = joint.sum(0)
posterior = joint / evidence
g = (evidence @ posterior.mT.log()).exp()
two_red, three_red = likelihood[:, 2], likelihood[:, 3]
kept = joint[1:, 1].sum() / evidence[1]


def shares(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum()


def mean_gap(q: torch.Tensor) -> torch.Tensor:
    """Σ_x p(x) KL(q‖p(h|x)) for one q(h)."""
    return evidence @ (q * (q / posterior.mT).log()).sum(-1)


BITS = 64 * torch.tensor(16.0, dtype=torch.float64).log2()
NATS = 64 * torch.tensor(16.0, dtype=torch.float64).log()
RIGHT = {
    "posterior-two-red": posterior[:, 2],
    "board-excess": three_red.sum().log() - evidence[3].log(),
    "never-open": -kept.log(),
    "grey-units": NATS,
    "shared-q": mean_gap(shares(g)),
    "posterior-at-beta-two": shares(joint[:, 3] ** 2),
}
WRONG = {
    "posterior-two-red": [shares(two_red), joint[:, 2]],
    "board-excess": [
        evidence[3].log() - three_red.sum().log(),
        three_red.sum().log(),
        -(posterior[:, 3] * prior.log()).sum(),
    ],
    "never-open": [-prior[1:].sum().log(), -posterior[0, 1].log(), kept.log()],
    "grey-units": [NATS / 64, -NATS, BITS],
    "shared-q": [mean_gap(prior), evidence @ (posterior.mT * (posterior.mT / prior).log()).sum(-1), g.sum().log()],
    "posterior-at-beta-two": [posterior[:, 3], shares(joint[:, 3].sqrt()), shares(prior * three_red**2)],
}


def test_every_exercise_of_the_page_is_here():
    text = (ROOT / "book/vae/latent-variables-and-the-elbo.md").read_text("utf-8")
    named = {part.split('"')[1] for part in text.split("exercises.check(")[1:]}
    assert named == set(ENTRIES) == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_the_stored_answers_are_the_computed_ones(name):
    stored = partial(torch.tensor, dtype=torch.float64)
    torch.testing.assert_close(stored(ENTRIES[name]["answer"]), RIGHT[name], rtol=1e-10, atol=1e-10)
    assert len(ENTRIES[name]["wrong"]) == len(WRONG[name])
    for entry, wrong in zip(ENTRIES[name]["wrong"], WRONG[name], strict=True):
        torch.testing.assert_close(stored(entry["answer"]), wrong, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_the_reader_hears_what_is_wrong(name, capsys):
    assert exercises.check(name, RIGHT[name])
    assert capsys.readouterr().out == "Right.\n"
    for entry, wrong in zip(ENTRIES[name]["wrong"], WRONG[name], strict=True):
        assert not exercises.check(name, wrong)
        assert capsys.readouterr().out == entry["hint"] + "\n"


def test_two_red_without_the_prior_would_be_closed():
    """The solution: closed is likeliest by the likelihood alone, bent with the prior."""
    assert two_red.argmax() == 2
    assert posterior[:, 2].argmax() == 1
    torch.testing.assert_close(joint[:, 2], torch.tensor([0.048, 0.1125, 0.0768], dtype=torch.float64))


def test_the_board_is_largest_where_the_prior_is_forgotten():
    """The solution's numbers, and a numerical maximum over all q."""

    def board(logits):
        q = torch.softmax(torch.tensor(logits, dtype=torch.float64), 0)
        return -float((q * (three_red / q).log()).sum())

    found = optimize.minimize(board, [0.0, 0.0, 0.0], tol=1e-12)
    assert -found.fun == pytest.approx(math.log(0.645), abs=1e-9)
    assert RIGHT["board-excess"].item() == pytest.approx(math.log(0.645 / 0.1439), abs=1e-12)


def test_never_open_in_the_solutions_numbers():
    assert RIGHT["never-open"].item() == pytest.approx(-math.log((0.1125 + 0.0192) / 0.3237), abs=1e-12)


@pytest.mark.parametrize(
    ("free_energy", "best"),
    [
        (mean_gap, shares(g)),
        (
            lambda q: -(q * joint[:, 3].log()).sum() + (q * q.log()).sum() / 2,
            shares(joint[:, 3] ** 2),
        ),
    ],
    ids=["one q for all", "another temperature"],
)
def test_the_claimed_minimum_is_one(free_energy, best):
    """A step to any other q raises it, and its gradient at the claimed q is the same in every direction."""
    q = best.clone().requires_grad_()
    (slope,) = torch.autograd.grad(free_energy(q), q)
    torch.testing.assert_close(slope, slope.mean().expand(3), rtol=1e-10, atol=1e-10)
    for other in (prior, posterior[:, 0], posterior[:, 3], torch.full((3,), 1 / 3, dtype=torch.float64)):
        assert free_energy(other) > free_energy(best)


def test_the_mean_of_the_posteriors_is_the_prior():
    """The solution of "One q for all": the arithmetic mean is the prior, and it is worse than the best q."""
    torch.testing.assert_close(posterior @ evidence, prior)
    assert mean_gap(prior) > mean_gap(shares(g)) + 1e-3


def test_limits_of_the_temperature():
    """β → 0 gives the uniform distribution, β → ∞ the shape with the largest joint probability."""
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(shares(joint[:, 3] ** 1e-9), third, rtol=0, atol=1e-8)
    torch.testing.assert_close(shares(joint[:, 3] ** 60), torch.eye(3, dtype=torch.float64)[2], rtol=0, atol=1e-8)
