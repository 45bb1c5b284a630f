"""Plots: what is on the axes is what was passed, nothing is shown, and one picture has one file."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false

import io
import itertools
import re
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from lecturecode import plot

X = torch.linspace(0, 1, 5)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """A backend without windows, and the parameters as they were."""
    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("a plot called show()"))
    with mpl.rc_context():
        yield
    plt.close("all")


CALLS = {
    "lines": lambda ax=None: plot.lines(X, {"a": X, "b": X**2}, ax, "x", "y"),
    "bars": lambda ax=None: plot.bars({"p": X, "q": X**2}, list("abcde"), ax, "x"),
    "points": lambda ax=None: plot.points(torch.stack([X, X], 1), torch.tensor([0, 1, 2, 1, 0]), ax, "x", "y"),
    "images": lambda ax=None: plot.images(
        torch.rand(5, 9, generator=torch.Generator().manual_seed(0)), 3, ax, ["a", "b"]
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_plot_returns_the_axes_it_was_given_or_new_ones(name):
    _, ax = plt.subplots()
    assert CALLS[name](ax) is ax
    assert plt.get_fignums() == [1]
    assert CALLS[name]() is not ax
    assert plt.get_fignums() == [1, 2]


@pytest.mark.parametrize("name", CALLS)
def test_one_picture_is_one_file(name):
    def drawn() -> bytes:
        plot.style()
        file = io.BytesIO()
        CALLS[name]().figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return file.getvalue()

    assert drawn() == drawn()


@pytest.mark.parametrize("name", CALLS)
def test_a_picture_has_only_the_books_colours(name):
    plot.style()
    file = io.StringIO()
    CALLS[name]().figure.savefig(file, format="svg")
    palette = {plot.INK, plot.MUTED, plot.GRID, plot.PAPER, *plot.COLOURS}
    assert {colour.lower() for colour in re.findall(r"#[0-9a-fA-F]{6}\b", file.getvalue())} <= palette | {"#000000"}


def test_lines():
    ax = plot.lines({"a": X, "b": 2 * X}, {"a": X.requires_grad_(), "b": X**2}, xlabel="t", ylabel="nats")
    first, second = ax.get_lines()
    np.testing.assert_array_equal(first.get_ydata(), X.detach())
    np.testing.assert_array_equal(second.get_xdata(), 2 * X.detach())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", "nats")
    assert plot.lines(X, {"one": X}).get_legend() is None
    assert plot.lines(X, {"a": X, "b": X}, legend=False).get_legend() is None


def test_lines_differ_in_dash_as_well_as_in_colour():
    plot.style()
    ax = plot.lines(X, dict.fromkeys("abcdef", X))
    assert len({line.get_color() for line in ax.get_lines()}) == 6
    assert len({str(line._unscaled_dash_pattern) for line in ax.get_lines()}) == 6


def test_bars():
    groups = {"p": torch.tensor([0.2, 0.8]), "q": torch.tensor([0.5, 0.5])}
    ax = plot.bars(groups, ["rain", "sun"])
    assert [round(float(bar.get_height()), 6) for bar in ax.patches] == [0.2, 0.8, 0.5, 0.5]
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches)
    assert all(right <= left for (_, right), (left, _) in itertools.pairwise(spans))  # none covers another
    assert [label.get_text() for label in ax.get_xticklabels()] == ["rain", "sun"]
    assert ax.get_ylabel() == "probability"
    assert len({bar.get_hatch() for bar in ax.patches}) == 2
    assert plot.bars({"p": X}, list("abcde")).get_legend() is None


def test_points_are_drawn_as_their_digits():
    xy, labels = torch.rand(20, 2, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 10
    ax = plot.points(xy, labels)
    assert [line.get_marker() for line in ax.get_lines()] == [f"${k}$" for k in range(10)]
    for k, line in enumerate(ax.get_lines()):
        np.testing.assert_array_equal(line.get_xydata(), xy[labels == k])
    (cloud,) = plot.points(xy).get_lines()
    np.testing.assert_array_equal(cloud.get_xydata(), xy)


def test_images_stand_where_they_should():
    x = torch.arange(5)[:, None].expand(5, 4).float() / 10 + 0.1
    ax = plot.images(x, columns=3, titles=["first", "second"])
    (sheet,) = ax.get_images()
    values = sheet.get_array()
    assert values.shape == (2 * 3 + 1, 3 * 3 + 1)
    for k in range(5):
        top, left = 1 + 3 * (k // 3), 1 + 3 * (k % 3)
        np.testing.assert_allclose(values[top : top + 2, left : left + 2], 0.1 + k / 10, rtol=1e-6)
    assert float(values.sum()) == pytest.approx(float(x.sum()))
    assert sheet.get_clim() == (0, 1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]


def test_a_picture_keeps_its_lines_and_columns():
    x = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    (sheet,) = plot.images(x, columns=1).get_images()
    np.testing.assert_array_equal(sheet.get_array()[1:3, 1:3], [[0, 1], [0, 0]])


def test_style_starts_no_shell():
    """In a plain script nothing is shown inline, and no interactive shell is made for it."""
    code = (
        "from lecturecode import plot; plot.style(); import sys\n"
        "shell = sys.modules.get('IPython.core.interactiveshell')\n"
        "assert shell is None or not shell.InteractiveShell.initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
