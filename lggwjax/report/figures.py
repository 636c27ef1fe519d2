"""From a run's records to figures; each function returns the figure and its axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lggwjax.report.curves import Curve, Setting, draw_curves, new_axes, plot_curve, shade_turn
from lggwjax.report.records import loss_unit
from lggwjax.report.scales import scale_descent, scale_steps, scale_values
from lggwjax.report.style import BLUE, GREEN, GREY, INK, PURPLE, VERMILLION, style
from lggwjax.report.verdict import words

_SETTING = Setting()
_MOVES = {"step": "the step just taken", "move": "the move from the checkpoint before"}


def losses(records: pd.DataFrame, setting: Setting = _SETTING) -> tuple[Figure, Axes]:
    """Draw the train and the held-out loss; see `load_run` for ``records``.

    Example:
        >>> from lggwjax.report.records import columns
        >>> fig, ax = losses(pd.DataFrame([dict.fromkeys(columns(), 1.0)]))
        >>> ax.get_ylabel()
        'loss (nats)'
    """
    curves = [
        Curve("train_loss", "train", BLUE),
        Curve("heldout_loss", setting.unseen, VERMILLION, "--", "s"),
    ]
    return draw_curves(records, curves, f"loss ({loss_unit(records)})", setting)


def widths(records: pd.DataFrame, setting: Setting = _SETTING) -> tuple[Figure, Axes]:
    """Draw the widths on the train probe: stacked, single, union, and the cloud of the present checkpoint.

    Example:
        >>> from lggwjax.report.records import columns
        >>> fig, ax = widths(pd.DataFrame([dict.fromkeys(columns(), 1.0)]))
        >>> ax.get_xlabel()
        'training step'
    """
    curves = [
        Curve("lggw", "LGGW\n(stacked)", BLUE),
        Curve("single_width", "single\n(mean)", GREEN, "-", "^"),
        Curve("union_width", "union", PURPLE, "-", "D"),
        Curve("cloud_width", "cloud\n(present)", VERMILLION, "--", "s"),
    ]
    return draw_curves(records, curves, f"Gaussian width\n({_per_parameter(records)})", setting)


def unseen_widths(records: pd.DataFrame, setting: Setting = _SETTING) -> tuple[Figure, Axes]:
    """Draw the LGGW and the cloud width on samples trained on and on held-out ones.

    Example:
        >>> from lggwjax.report.records import columns
        >>> fig, ax = unseen_widths(pd.DataFrame([dict.fromkeys(columns(), 1.0)]))
        >>> len(ax.lines) >= 4
        True
    """
    curves = [
        Curve("lggw", "LGGW,\ntrain", BLUE),
        Curve("heldout_lggw", "LGGW,\nheld-out", BLUE, "--", "s"),
        Curve("cloud_width", "cloud,\ntrain", VERMILLION),
        Curve("heldout_cloud_width", "cloud,\nheld-out", VERMILLION, "--", "s"),
    ]
    return draw_curves(records, curves, f"Gaussian width\n({_per_parameter(records)})", setting)


def descent(records: pd.DataFrame, setting: Setting = _SETTING) -> tuple[Figure, Axes]:
    """Draw the population descent of the step just taken with its 95% intervals, marked helps, undecided or hurts.

    Example:
        >>> from lggwjax.report.records import columns
        >>> fig, ax = descent(pd.DataFrame([dict.fromkeys(columns(), 1.0)]))
        >>> ax.get_ylabel()
        'held-out descent (nats)'
    """
    looks: dict[str, dict[str, Any]] = {
        "helps": {"color": BLUE, "marker": "^"},
        "undecided": {"color": GREY, "marker": "o", "markerfacecolor": "white"},
        "hurts": {"color": VERMILLION, "marker": "v"},
    }
    judged = np.array(words(records))
    with style():
        fig, ax = new_axes(records, setting)
        name = "population_descent"
        values, low, high = (records[f"{name}.{f}"].to_numpy(float) for f in ("value", "ci95_low", "ci95_high"))
        ax.plot(records["step"], values, color="#bbbbbb", linewidth=1, zorder=1)
        for word, look in looks.items():
            here = judged == word
            error = np.clip([values[here] - low[here], high[here] - values[here]], 0, None)
            steps = records["step"][here]
            ax.errorbar(steps, values[here], error, fmt="none", ecolor=look["color"], elinewidth=1.4, capsize=2.5)
            ax.plot(steps, values[here], linestyle="", markersize=6.5, label=word, **look)
        ax.axhline(0, color=INK, linewidth=1)
        scale_descent(ax, np.concatenate([values, low, high]))
        ax.set_ylabel(f"{setting.unseen} descent ({loss_unit(records)})")
        fig.legend(
            loc="outside upper left",
            ncols=3,
            frameon=False,
            handletextpad=0.2,
            title=_MOVES[setting.move],
            alignment="left",
        )
    return fig, ax


def gradients(records: pd.DataFrame, setting: Setting = _SETTING) -> tuple[Figure, Axes]:
    """Draw the deviation of the empirical gradient beside both gradient norms.

    Example:
        >>> from lggwjax.report.records import columns
        >>> fig, ax = gradients(pd.DataFrame([dict.fromkeys(columns(), 1.0)]))
        >>> "nats per unit of parameter" in ax.get_ylabel()
        True
    """
    curves = [
        Curve("grad_norm", "train\ngradient", BLUE),
        Curve("heldout_grad_norm", f"{setting.unseen}\ngradient", VERMILLION, "--", "s"),
        Curve("deviation", "deviation", GREEN, "-", "^"),
    ]
    return draw_curves(records, curves, f"norm\n({_per_parameter(records)})", setting)


def ratios(records: pd.DataFrame, setting: Setting = _SETTING) -> tuple[Figure, Axes]:
    """Draw ratios that do not change when the loss is scaled; `ratio_columns` says which.

    Example:
        >>> from lggwjax.report.records import columns
        >>> fig, ax = ratios(pd.DataFrame([dict.fromkeys(columns(), 1.0)]))
        >>> ax.get_ylabel()
        'ratio (no unit)'
    """
    curves = [
        Curve("lggw_over_rms", "LGGW /\nlargest rms", BLUE),
        Curve("cloud_over_rms", "cloud width /\npresent rms", VERMILLION, "--", "s"),
        Curve("nerc_over_width", "√n NERC /\n(LGGW + rms)", PURPLE, "-", "D"),
    ]
    return draw_curves(records.join(ratio_columns(records)), curves, "ratio (no unit)", setting)


def ratio_columns(records: pd.DataFrame) -> pd.DataFrame:
    """Divide widths by the size of the gradients, so that runs on other scales can be compared.

    ``rms`` is the root mean square of the per-sample gradient norms; a set along the path is divided by the largest
    rms up to there, the present cloud by the present rms. The interval of the NERC ratio joins two 95% intervals end to
    end, so it holds at 90% or more.

    Args:
        records: The table from `load_run`.

    Returns:
        Columns ``lggw_over_rms``, ``cloud_over_rms``, ``nerc_over_width``, each with ``.value``, ``.ci95_low`` and
        ``.ci95_high``; NaN where a divisor is zero or was not measured.

    Example:
        >>> from lggwjax.report.records import columns
        >>> table = ratio_columns(pd.DataFrame([dict.fromkeys(columns(), 1.0)]))
        >>> float(table["nerc_over_width.value"][0])
        0.5
    """
    rms = records["gradient_rms"].where(records["gradient_rms"] > 0)
    largest = rms.cummax().ffill()
    root_n = records["nerc.num_samples"] ** 0.5
    table: dict[str, Any] = {}
    for field, other in (("value", "value"), ("ci95_low", "ci95_high"), ("ci95_high", "ci95_low")):
        table[f"lggw_over_rms.{field}"] = records[f"lggw.{field}"] / largest
        table[f"cloud_over_rms.{field}"] = records[f"cloud_width.{field}"] / rms
        table[f"nerc_over_width.{field}"] = root_n * records[f"nerc.{field}"] / (records[f"lggw.{other}"] + largest)
    return pd.DataFrame(table)


def featurizer(records: pd.DataFrame, setting: Setting = _SETTING) -> tuple[Figure, np.ndarray]:
    """Draw the featurizer's share of active units, its L1 and L2 norm and its width, in four panels.

    Returns:
        The figure and its (2, 2) array of axes.

    Example:
        >>> from lggwjax.report.records import columns
        >>> fig, axes = featurizer(pd.DataFrame([dict.fromkeys(columns(), 1.0)]))
        >>> axes.shape
        (2, 2)
    """
    panels = {
        "features.active_share": ("active units (share)", GREEN, "^"),
        "features.l1": ("L1 norm (mean)", PURPLE, "D"),
        "features.l2": ("L2 norm (mean)", VERMILLION, "s"),
        "feature_width": ("width (units of feature)", BLUE, "o"),
    }
    with style():
        fig = Figure(figsize=(5.0, 4.4), layout="constrained")
        axes = fig.subplots(2, 2, sharex=True)
        for ax, (name, (title, colour, marker)) in zip(axes.flat, panels.items(), strict=True):
            shade_turn(ax, setting)
            shown = plot_curve(ax, records, Curve(name, title, colour, "-", marker))
            scale_values(ax, shown)
            if name == "features.active_share":
                ax.set_ylim(-0.02, 1.02)
            ax.set_title(title)
            scale_steps(ax, records["step"].to_numpy(float), num_ticks=4)
        for ax in axes[1]:
            ax.set_xlabel("training step")
    return fig, axes


def _per_parameter(records: pd.DataFrame) -> str:
    unit = loss_unit(records)
    return "nats per unit of parameter" if unit == "nats" else "loss per unit of parameter"
