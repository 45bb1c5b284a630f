"""Plots of tensors: each takes numbers and an Axes (or makes one), and returns the Axes. None calls `show`.

`style()` makes the book's look: vector graphics with seven fixed colours, told apart also by the colour-blind (Okabe &
Ito 2008), which the site maps to its light and dark palettes. Curves differ in dash as well as in colour.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.rcsetup import cycler
from torch import Tensor

__all__ = ["bars", "images", "lines", "points", "style"]

INK, MUTED, GRID, PAPER = "#1c1c1c", "#6b6b6b", "#d9d9d9", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))


def style() -> None:
    """Sets matplotlib's parameters to the book's look, and inline figures to reproducible SVG."""
    cycle = cycler(color=COLOURS, linestyle=DASHES)
    mpl.rcParams.update(
        {
            "figure.figsize": (5.4, 3.1), "figure.constrained_layout.use": True, "figure.dpi": 96,
            "font.size": 10, "font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans",
            "axes.prop_cycle": cycle, "axes.spines.top": False, "axes.spines.right": False,
            "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "axes.titlecolor": INK,
            "axes.titlesize": 10, "axes.titlelocation": "left", "axes.grid": True, "axes.axisbelow": True,
            "grid.color": GRID, "grid.linewidth": 0.6, "xtick.color": MUTED, "ytick.color": MUTED,
            "xtick.labelcolor": INK, "ytick.labelcolor": INK, "lines.linewidth": 1.8, "legend.frameon": False,
            "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER,
            "image.cmap": "gray_r", "image.interpolation": "nearest",
            "svg.fonttype": "path", "svg.hashsalt": "lecturecode",
        }
    )  # fmt: skip
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if get_ipython() is None:  # a plain script: nothing is shown inline
        return
    set_matplotlib_formats("svg", metadata={"Date": None, "Creator": None})


def lines(
    x: Tensor | Mapping[str, Tensor],
    curves: Mapping[str, Tensor],
    ax: Axes | None = None,
    xlabel: str = "",
    ylabel: str = "",
    legend: bool = True,
) -> Axes:
    """One curve for each entry of `curves`, named in the legend; x is shared, or given for each name."""
    ax = ax or plt.subplots()[1]
    for name, y in curves.items():
        ax.plot(_numpy(x[name] if isinstance(x, Mapping) else x), _numpy(y), label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if legend and len(curves) > 1:
        ax.legend()
    return ax


def bars(
    groups: Mapping[str, Tensor],
    labels: Sequence[str],
    ax: Axes | None = None,
    xlabel: str = "",
    ylabel: str = "probability",
) -> Axes:
    """Bars side by side: one group of bars for each label, one bar in it for each entry of `groups`."""
    ax = ax or plt.subplots()[1]
    width = 0.8 / len(groups)
    hatches = ("", "///", "...", "xxx", "---", "+++")
    for k, (name, heights) in enumerate(groups.items()):
        centre = np.arange(len(labels)) + (k - (len(groups) - 1) / 2) * width
        ax.bar(centre, _numpy(heights), width * 0.92, label=name, hatch=hatches[k % 6], edgecolor=PAPER, linewidth=0)
    ax.set_xticks(np.arange(len(labels)), labels)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(axis="x", visible=False)
    if len(groups) > 1:
        ax.legend()
    return ax


def points(
    xy: Tensor, labels: Tensor | None = None, ax: Axes | None = None, xlabel: str = "", ylabel: str = ""
) -> Axes:
    """Points of the plane; with integer labels each point is drawn as its digit, so that colour is not needed."""
    ax = ax or plt.subplots(figsize=(5.4, 5.0))[1]
    plane = _numpy(xy)
    if labels is None:
        ax.plot(plane[:, 0], plane[:, 1], "o", markersize=3, alpha=0.6)
    else:
        for label in np.unique(_numpy(labels)):
            rows = plane[_numpy(labels) == label]
            colour = COLOURS[int(label) % len(COLOURS)]
            ax.plot(rows[:, 0], rows[:, 1], linestyle="", marker=f"${label}$", markersize=5, color=colour)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def images(x: Tensor, columns: int, ax: Axes | None = None, titles: Sequence[str] = ()) -> Axes:
    """Rows of x as square pictures, `columns` to a line, 0 light and 1 dark; one title for each line, at its left."""
    count, side = len(x), round(x.shape[-1] ** 0.5)
    rows = -(-count // columns)
    ax = ax or plt.subplots(figsize=(5.4, 5.4 * rows / columns + 0.05))[1]
    sheet = np.zeros((rows * (side + 1) + 1, columns * (side + 1) + 1))
    for k, picture in enumerate(_numpy(x).reshape(count, side, side)):
        top, left = 1 + (k // columns) * (side + 1), 1 + (k % columns) * (side + 1)
        sheet[top : top + side, left : left + side] = picture
    ax.imshow(sheet, vmin=0, vmax=1)
    ax.grid(visible=False)
    ax.set_xticks([])
    ax.set_yticks([(side + 1) * k + side / 2 for k in range(len(titles))], titles)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _numpy(x: object) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
