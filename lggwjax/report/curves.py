"""A run's quantities against the training step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lggwjax.report.drawing import new_figure
from lggwjax.report.labels import End, label_ends
from lggwjax.report.scales import scale_steps, scale_values
from lggwjax.report.style import style


@dataclass(frozen=True)
class Setting:
    """What a figure says beside its numbers.

    Attributes:
        unseen: ``held-out``, or ``population`` where the population is exact.
        move: ``step``, or ``move`` where the checkpoints were made elsewhere.
        turn: The measured steps between which reuse stopped helping: they are shaded. None shades nothing.
    """

    unseen: str = "held-out"
    move: str = "step"
    turn: tuple[int | None, int] | None = None


@dataclass(frozen=True)
class Curve:
    """One line of a figure: a quantity of the records, its direct label and its look."""

    name: str
    label: str
    colour: str
    dashes: str = "-"
    marker: str = "o"


def draw_curves(
    records: pd.DataFrame, curves: list[Curve], ylabel: str, setting: Setting, height: float = 3.5
) -> tuple[Figure, Axes]:
    """Draw quantities against the step, with bands where the records have intervals and a label at each line's end.

    Args:
        records: The table from `load_run`; a quantity without a number is left out.
        curves: The lines.
        ylabel: What the vertical axis shows, with its unit.
        setting: What is shaded.
        height: Height of the figure in inches.

    Returns:
        The figure and its axes; the figure belongs to no window and needs no closing.

    Example:
        >>> table = pd.DataFrame({"step": [0, 1, 10], "train_loss": [2.0, 1.0, 0.5]})
        >>> fig, ax = draw_curves(table, [Curve("train_loss", "train", "#0072B2")], "loss (nats)", Setting())
        >>> ax.get_ylabel()
        'loss (nats)'
    """
    with style():
        fig, ax = new_axes(records, setting, height)
        shown = [plot_curve(ax, records, curve) for curve in curves]
        scale_values(ax, np.concatenate(shown))
        ax.set_ylabel(ylabel)
        steps, ends = records["step"].to_numpy(float), []
        for curve, values in zip(curves, shown, strict=True):
            known = np.isfinite(values[: len(steps)])
            if known.any():
                last = np.flatnonzero(known)[-1]
                ends.append(End(float(steps[last]), float(values[last]), curve.label, curve.colour, curve.dashes))
        label_ends(fig, ax, ends)
    return fig, ax


def new_axes(records: pd.DataFrame, setting: Setting, height: float = 3.5) -> tuple[Figure, Axes]:
    """Make a figure of one column's width with the steps along its horizontal axis; call it inside `style`."""
    fig, ax = new_figure(height)
    shade_turn(ax, setting)
    scale_steps(ax, records["step"].to_numpy(float))
    ax.set_xlabel("training step")
    return fig, ax


def shade_turn(ax: Axes, setting: Setting) -> None:
    """Shade the measured steps between which reuse stopped helping, if it did."""
    if setting.turn is not None:
        ax.axvspan(setting.turn[0] or 0, setting.turn[1], color="#f1e6c8", linewidth=0, zorder=0)


def plot_curve(ax: Axes, records: pd.DataFrame, curve: Curve) -> np.ndarray:
    """Draw one quantity with its 95% band and return its values, then its ends, NaN where none was measured."""
    banded = f"{curve.name}.value" in records
    values = records[f"{curve.name}.value" if banded else curve.name].to_numpy(float)
    known = np.isfinite(values)
    steps = records["step"].to_numpy(float)
    ax.plot(
        steps[known],
        values[known],
        color=curve.colour,
        linestyle=curve.dashes,
        marker=curve.marker,
        label=curve.label.replace("\n", " "),
    )
    if not banded:
        return values
    low, high = (records[f"{curve.name}.ci95_{end}"].to_numpy(float) for end in ("low", "high"))
    if known.sum() > 1:
        ax.fill_between(steps[known], low[known], high[known], color=curve.colour, alpha=0.22, linewidth=0)
    else:
        ax.vlines(steps[known], low[known], high[known], color=curve.colour, alpha=0.5, linewidth=4)
    return np.concatenate([values, low, high])
