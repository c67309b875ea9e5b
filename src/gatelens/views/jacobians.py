"""Pictures of Jacobians before and after a rotation: |J| on one scale, shares above eps, the objective by iteration."""

from __future__ import annotations

import io
from typing import Any

from ..bases.rotation.picture import JacobianPicture
from ..bases.rotation.result import Trace

_INK, _SECOND = "#2166ac", "#b35806"
_STYLE: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "gatelens",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def jacobian_figure(picture: JacobianPicture) -> str:
    """The figure as SVG text: four panels of |J| and, below, the shares of entries above eps and the trace.

    Panels share one colour scale; rows and columns are in the order of their energy. Shares are over all inputs of a
    part, the panels show one input each; the captions say so.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas()
        for axis, (name, matrix) in zip(axes[:4], picture.matrices.items(), strict=True):
            image = axis.imshow(
                matrix.float().cpu().numpy(),
                cmap="Greys",
                vmin=0,
                vmax=picture.scale,
                interpolation="nearest",
                aspect="auto",
            )
            axis.set_title(f"{name}\nmean |y| {picture.l1[name]:.3f} over all its inputs", fontsize=8)
            axis.set_xlabel("input coordinate, by energy")
            axis.set_ylabel("output coordinate, by energy")
        figure.colorbar(
            image, ax=axes[:4], label=f"|J| at RMS 1 (white 0, black {picture.scale:.2g} or more)", shrink=0.8
        )
        _shares(axes[4], picture)
        _trace(axes[5], picture.trace)
        fitted, held = picture.inputs
        figure.suptitle(f"{picture.segment}: one of {fitted} fitted and one of {held} held-out inputs", fontsize=9)
        return _svg(figure)


def trace_figure(trace: Trace) -> str:
    """The objective by iteration alone, as SVG text."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4, 2.4), layout="constrained")
        _trace(figure.subplots(), trace)
        return _svg(figure)


def _canvas() -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 4, height_ratios=(1.25, 1))
    panels = [figure.add_subplot(grid[0, i]) for i in range(4)]
    return figure, [*panels, figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2:])]


def _shares(axis: Any, picture: JacobianPicture) -> None:
    for name, shares in picture.shares.items():
        colour = _INK if name.startswith("after") else _SECOND
        line = "--" if "held out" in name else "-"
        axis.plot(
            list(shares), [100 * v for v in shares.values()], line, marker="o", markersize=3, color=colour, label=name
        )
    axis.set_xscale("log")
    axis.set_ylim(0, 100)
    axis.set_xlabel("eps (units of the RMS)")
    axis.set_ylabel("entries with |y| > eps, %")
    axis.legend(frameon=False)


def _trace(axis: Any, trace: Trace) -> None:
    """Each stage on a scale of its own, from its worst to its best: objectives are not comparable."""
    axis.set_xlabel("iteration")
    axis.set_ylabel("objective, each stage from\nits worst (0) to its best (1)")
    if not len(trace):
        axis.text(0.5, 0.5, "no iterations", ha="center", va="center", transform=axis.transAxes)
        return
    for stage in dict.fromkeys(trace.stage):
        steps = [i for i, s in enumerate(trace.stage) if s == stage]
        values = [trace.value[i] for i in steps]
        low, high = min(values), max(values)
        heights = [(v - low) / (high - low) if high > low else 1.0 for v in values]
        axis.plot([i + 1 for i in steps], heights, label=f"{stage}: {low:.4g} to {high:.4g}")
    axis.legend(frameon=False, loc="lower right")


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
