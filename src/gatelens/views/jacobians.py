"""Jacobians before and after a rotation: |J| on one scale, shares above eps, the objective by iteration, and the nulls beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ..bases.rotation.picture import JacobianPicture
from ..bases.rotation.result import Trace
from ..jacobians.sparsity import reciprocal_in
from .document import fragment
from .figures import table
from .ink import COLOURS, inked

_ORDER = (
    "rotation",
    "neurons",
    "random",
    "svd",
    "qr",
    "fitted to noise",
)  # a report read back is in the order of the alphabet


def jacobian_figure(picture: JacobianPicture) -> str:
    """The figure as SVG text: four panels of |J| and, below, the shares of entries above eps and the trace.

    Panels share one colour scale; rows and columns are in the order of their energy. Shares are over all inputs of a
    part, the panels show one input each; the captions say so.
    """
    with inked(10, 5.6) as (figure, result):
        above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
        panels = above.subplots(1, 4)
        for axis, (name, matrix) in zip(panels, picture.matrices.items(), strict=True):
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
        panels[0].set_ylabel("output coordinate, by energy")
        label = f"|J| at RMS 1 (white 0, black {picture.scale:.2g} or more)"
        above.colorbar(image, ax=panels, label=label, shrink=0.8)
        shares, trace = below.subplots(1, 2)
        _shares(shares, picture)
        _trace(trace, picture.trace)
        for axis in (shares, trace):
            axis.spines[["top", "right"]].set_visible(False)
        fitted, held = picture.inputs
        figure.suptitle(f"{picture.segment}: one of {fitted} fitted and one of {held} held-out inputs", fontsize=9)
    return result[0]


def rotation_panel(picture: JacobianPicture, report: Mapping[str, Any]) -> Markup:
    """The figure of one segment, with the verdict on each rotation that was fitted to it and its nulls.

    Args:
        report: hook -> what `rotation_report` says of the rotation there; entries of other segments are left out.
    """
    own = {hook: entry for hook, entry in report.items() if entry["segment"] == picture.segment}
    return fragment(
        "rotation.html.j2",
        figure=Markup(jacobian_figure(picture)),  # ours alone: matplotlib escapes what it writes
        verdicts={hook: entry["verdict"] for hook, entry in own.items()},
        tables=[nulls_table(hook, entry) for hook, entry in own.items()],
    )


def nulls_table(hook: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """A rotation beside its nulls on held-out inputs, for a template."""
    found = entry["sparsity"]
    rows = {
        name: {"l1": found[name]["l1"], "hoyer": found[name]["hoyer"]}
        | {f"S{eps}": value for eps, value in reciprocal_in(found[name]).items()}
        for name in sorted(found, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    }
    eps = reciprocal_in(next(iter(found.values())))
    columns = [("basis", None), ("mean |y|", "l1"), ("Hoyer", "hoyer"), *((f"S({e})", f"S{e}") for e in eps)]
    what = (
        f"Jacobians of held-out inputs in several bases at {hook}, at a root mean square of 1. Mean |y|: lower is sparser. Hoyer and "
        "S(eps), the mean of 1 / (|y| + eps): higher is sparser. “Fitted to noise” is what the same search makes of Gaussian columns."
    )
    return table(hook, what, columns, rows)


def _shares(axis: Any, picture: JacobianPicture) -> None:
    for name, shares in picture.shares.items():
        axis.plot(
            list(shares),
            [100 * v for v in shares.values()],
            "--" if "held out" in name else "-",
            marker="o",
            markersize=3,
            color=COLOURS[0 if name.startswith("after") else 1],
            label=name,
        )
    axis.set_xscale("log")
    axis.set_xticks(list(shares), [f"{eps:g}" for eps in shares])
    axis.minorticks_off()
    axis.set_ylim(0, 100)
    axis.set_xlabel("eps (units of the RMS)")
    axis.set_ylabel("entries with |y| > eps, %")
    axis.legend(frameon=False, fontsize=8)


def _trace(axis: Any, trace: Trace) -> None:
    """Each stage on a scale of its own, from its worst to its best: objectives are not comparable."""
    axis.set_xlabel("iteration")
    axis.set_ylabel("objective, each stage from\nits worst (0) to its best (1)")
    if not len(trace):
        axis.text(0.5, 0.5, "no iterations", ha="center", va="center", transform=axis.transAxes)
        return
    for number, stage in enumerate(dict.fromkeys(trace.stage)):
        steps = [i for i, s in enumerate(trace.stage) if s == stage]
        values = [trace.value[i] for i in steps]
        low, high = min(values), max(values)
        heights = [(v - low) / (high - low) if high > low else 1.0 for v in values]
        colour = COLOURS[number % len(COLOURS)]
        axis.plot([i + 1 for i in steps], heights, color=colour, label=f"{stage}: {low:.4g} to {high:.4g}")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
