"""Plots as PNG files."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from bench.context import Bars, Distribution, Lines, Plot

mpl.use("Agg")


def draw(plot: Plot, folder: Path) -> Path:
    """Write `folder`/NAME.png and return its path."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    try:
        axes.set_title(plot.title)
        match plot:
            case Lines():
                _lines(plot, axes)
            case Bars():
                _bars(plot, axes)
            case Distribution():
                _distribution(plot, axes)
        axes.grid(visible=True, alpha=0.3)
        path = folder / f"{plot.name}.png"
        figure.savefig(path, dpi=110)
    finally:
        plt.close(figure)
    return path


def _lines(plot: Lines, axes: Axes) -> None:
    for series in plot.series:
        axes.plot(series.x, series.y, label=series.label, marker="o" if len(series.x) < 20 else None)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.set_ylim(bottom=0)
    axes.legend()


def _bars(plot: Bars, axes: Axes) -> None:
    labels = [label for label, _ in plot.bars]
    drawn = axes.barh(labels, [value for _, value in plot.bars])
    axes.bar_label(drawn, fmt="%.3g", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel(plot.y_label)


def _distribution(plot: Distribution, axes: Axes) -> None:
    for label, samples in plot.samples:
        values = np.sort(np.asarray(samples, dtype=np.float64))
        axes.step(values, np.arange(1, len(values) + 1) / max(1, len(values)), where="post", label=label)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel("share")
    axes.set_ylim(0, 1)
    axes.legend()
