"""Untrusted notebooks: what is taken from them, in which order it runs, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from demo import HONEST, LOCKED, RELEASE, SOLUTIONS, cell, cells, notebook

from grading.notebooks import CELLS, MOST, PARTS, SOURCE, NotANotebook, read, skeleton


def sources(data: bytes) -> list[str]:
    """What would run, in its order."""
    steps, _ = skeleton(read(RELEASE)[0], read(data)[0])
    return [source for _, several in steps for source in several]


RIGHT = [LOCKED["set-up"], SOLUTIONS["normalise"], SOLUTIONS["free-energy"]]


def test_an_honest_notebook_runs_as_it_is_without_its_checks():
    assert sources(HONEST) == RIGHT


@pytest.mark.parametrize(
    "handed_in",
    [
        cells()[::-1],
        [cells()[1], cells()[3]],
        [cell("import evil", "set-up"), *cells()[1:]],
        [*cells()[:4], cell("free_energy = 1", "free-energy-check")],
        [*cells(), cell("# text", "normalise", cell_type="markdown")],
    ],
)
def test_locked_cells_and_the_order_are_the_release_s(handed_in):
    assert sources(notebook(handed_in)) == RIGHT


def test_own_cells_run_where_they_stand():
    own = [cell(f"x = {k}") for k in range(4)]
    first, normalise, check, free, last = cells()
    ran = sources(notebook([own[0], first, own[1], normalise, check, own[2], free, last, own[3]]))
    assert ran == ["x = 0", RIGHT[0], "x = 1", RIGHT[1], "x = 2", RIGHT[2], "x = 3"]


def test_cells_with_one_name_run_one_after_the_other():
    twice = [cells()[0], cell("first = 1", "normalise"), *cells()[1:]]
    assert sources(notebook(twice)) == [RIGHT[0], "first = 1", *RIGHT[1:]]
    _, remarks = skeleton(read(RELEASE)[0], read(notebook(twice))[0])
    assert remarks == ["the code cell normalise is there 2 times"]
    _, remarks = skeleton(read(RELEASE)[0], read(notebook([]))[0])
    assert remarks == ["the code cell normalise is there 0 times", "the code cell free-energy is there 0 times"]


def test_lost_metadata_are_known_by_their_sources():
    handed_in = [{**one, "metadata": {}} for one in cells()]
    assert sources(notebook(handed_in)) == RIGHT


def test_halves_of_characters_become_question_marks():
    (only,), _ = read(notebook([cell("# \ud83d and 😀 and \udc00")]))
    assert only.source == "# ? and 😀 and ?"


@pytest.mark.parametrize("source", [None, 5, {}, ["x", 5], [["x"]], True, "#" * (SOURCE + 1), ["#" * SOURCE, "#"]])
def test_an_unreadable_source_is_left_out_and_told(source):
    found, remarks = read(notebook([cell("x = 1"), cell(source)]))
    assert [one.source for one in found] == ["x = 1"]
    assert len(remarks) == 1
    assert "cell 2" in remarks[0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"{}",
        b"\x80",
        b'"text"',
        HONEST[:-1],
        HONEST + b"{}",
        notebook([], nbformat=3),
        notebook([], nbformat="4"),
        b'{"nbformat": 4, "cells": {}}',
        notebook([cell("")] * (CELLS + 1)),
        HONEST + b" " * MOST,
        notebook(cells(), x=[[]] * (PARTS // 2)),
        b"[" * 10**6,
        b'{"a":' * 10**5,
        b"1" * 10**6,
    ],
)
def test_what_is_no_notebook_is_refused(data):
    with pytest.raises(NotANotebook):
        read(data)


def test_mutated_notebooks_are_read_or_refused():
    """Five hundred notebooks with a few bytes changed, and five hundred with a few values: nothing else comes out."""
    rng, release = np.random.default_rng(11), read(RELEASE)[0]
    values = [None, -1, 1e300, "", "x", [], {}, [[]], True, float("nan"), "\ud800", {"nbgrader": []}]

    def spoilt(data: object) -> object:
        if rng.random() < 0.06:
            return values[rng.integers(len(values))]
        if isinstance(data, dict):
            return {key: spoilt(value) for key, value in data.items()}
        return [spoilt(value) for value in data] if isinstance(data, list) else data

    for turn in range(1000):
        data = bytearray(HONEST)
        if turn % 2:
            data = json.dumps(spoilt(json.loads(HONEST))).encode()
        else:
            for place in rng.integers(0, len(data), 5):
                data[place] = rng.integers(256)
        try:
            steps, _ = skeleton(release, read(bytes(data))[0])
            assert all(isinstance(source, str) for _, several in steps for source in several)
        except NotANotebook:
            pass
