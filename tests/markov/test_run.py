"""Runs: which states are yielded, that a run can be taken up again, and that nothing grows."""

import gc
import weakref

import pytest
import torch
from small_chains import BIT
from tqdm import tqdm

from lecturecode import seeded
from lecturecode.markov import flip, hmc, run
from lecturecode.rng import uniform


def counter(x, rng):
    """A kernel that counts its steps."""
    return x + 1


def walk(x, rng):
    return x + uniform(tuple(x.shape), rng, x)


START = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("steps", "burn_in", "thin", "seen"),
    [(4, 0, 1, [1, 2, 3, 4]), (4, 3, 1, [4, 5, 6, 7]), (6, 0, 3, [3, 6]), (6, 5, 2, [7, 9, 11]), (1, 0, 1, [1])],
)
def test_which_states_are_yielded(steps, burn_in, thin, seen):
    walking = run(counter, START, steps, seeded(1), burn_in, thin)
    assert len(walking) == len(seen)
    assert [int(x[0, 0]) for x in walking] == seen
    assert len(walking) == 0
    assert next(walking, None) is None
    assert (START == 0).all()


def test_nothing_happens_before_the_first_state_is_asked_for():
    rng = seeded(1)
    before = rng.get_state()
    run(walk, START, 10, rng, burn_in=5)
    assert torch.equal(rng.get_state(), before)


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_run_is_taken_up_where_it_stopped(cut):
    """From its x and its generator's state, the very states that a longer run yields."""
    whole = torch.stack(list(run(walk, START, 10, seeded(2), burn_in=3)))
    rng = seeded(2)
    first = run(walk, START, cut, rng, burn_in=3)
    part = torch.stack(list(first))
    later = seeded(0)
    later.set_state(rng.get_state())
    rest = torch.stack(list(run(walk, first.x, 10 - cut, later)))
    assert torch.equal(torch.cat([part, rest]), whole)


def test_a_run_that_was_left_goes_on():
    """A broken loop loses nothing: the iterator goes on with the next state."""
    walking = run(walk, START, 10, seeded(2))
    for _, x in zip(range(4), walking, strict=False):
        last = x
    assert torch.equal(walking.x, last)
    assert len(walking) == 6
    assert torch.equal(torch.stack(list(walking)), torch.stack(list(run(walk, START, 10, seeded(2)))[4:]))


def test_states_are_let_go_when_the_caller_does_not_keep_them():
    """Of a thousand states at most three are alive at any time."""
    alive = []
    for x in run(walk, START, 1000, seeded(1)):
        alive = [r for r in alive if r() is not None]
        alive.append(weakref.ref(x))
        assert len(alive) <= 3
    del x
    gc.collect()


def test_no_gradient_is_kept():
    weight = torch.ones(2, requires_grad=True)
    for x in run(lambda x, rng: x * weight, START + 1, 3, seeded(1)):
        assert not x.requires_grad


def test_a_progress_bar_knows_the_end(capsys):
    """tqdm around the call: its total is the number of states, and the states are the same."""
    bar = tqdm(run(walk, START, 6, seeded(3), thin=2))
    assert bar.total == 3
    watched = torch.stack(list(bar))
    assert torch.equal(watched, torch.stack(list(run(walk, START, 6, seeded(3), thin=2))))
    assert "3/3" in capsys.readouterr().err


def test_devices_and_precisions(device, dtype):
    x = START.to(dtype).to(device)
    for kernel in (flip(BIT), hmc(lambda x: -x.square().sum(-1), 0.1, 2)):
        for state in run(kernel, x, 4, seeded(1), burn_in=1, thin=2):
            assert state.dtype == dtype
            assert state.device.type == device.type
            assert state.shape == x.shape


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: run(walk, START, 0, seeded(1)), "steps is 0; it must be at least 1"),
        (lambda: run(walk, START, 5, seeded(1), burn_in=-1), "burn_in is -1; it must be at least 0"),
        (lambda: run(walk, START, 5, seeded(1), thin=0), "thin is 0; it must be at least 1"),
        (lambda: run(walk, START, 5, seeded(1), thin=2), "thin = 2 does not divide it; take 4"),
        (lambda: run(walk, START, 2, seeded(1), thin=5), "thin = 5 does not divide it; take 5"),
        (lambda: run(walk, START[:0], 5, seeded(1)), r"x has shape \(0, 2\); pass at least one chain"),
        (lambda: next(run(lambda x, rng: x[:1], START, 5, seeded(1))), r"the kernel turned the shape \(3, 2\) into"),
    ],
)
def test_errors_at_the_door(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
