"""Figures as SVG text: curves against their nulls, and matrices of matched features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..errors import DataError
from .ink import COLOURS, INK, inked

_MARKS = ("o", "s", "^", "D", "v", "P")


def curve_figure(
    series: Mapping[str, tuple[Sequence[float], Sequence[float | None]]],
    x_label: str,
    y_label: str,
    nulls: Sequence[str] = (),
    levels: Mapping[str, float] | None = None,
    log_x: bool = False,
    title: str = "",
) -> str:
    """Curves with marks, the nulls dashed, and named horizontal levels (such as the untouched model) dotted.

    Args:
        series: name -> (x, y); a y of None leaves a gap. nulls: names of series that are null models.

    Returns:
        One `<svg>` element.

    Raises:
        DataError: no series, or x and y of unlike length.
    """
    if not series:
        raise DataError("a curve figure needs at least one series, got none")
    for name, (x, y) in series.items():
        if len(x) != len(y):
            raise DataError(f"series {name!r} has {len(x)} x and {len(y)} y values; give one y for each x")
    with _figure(5.6, 3.4) as (axes, result):
        for i, (name, (x, y)) in enumerate(series.items()):
            null = name in nulls
            values = [float("nan") if v is None else float(v) for v in y]
            axes.plot(
                list(x),
                values,
                marker=_MARKS[i % len(_MARKS)],
                markersize=4,
                linewidth=1.2 if null else 1.8,
                linestyle="--" if null else "-",
                color=COLOURS[i % len(COLOURS)],
                label=f"{name} (null)" if null else name,
            )
        for name, level in (levels or {}).items():
            axes.axhline(level, linestyle=":", linewidth=1, color=INK)
            axes.annotate(name, (0.995, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
        if log_x:
            axes.set_xscale("log", base=2)
            ticks = sorted({v for x, _ in series.values() for v in x if v > 0})
            axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axes.minorticks_off()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_title(title, fontsize=10)
        axes.legend(frameon=False, fontsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return result[0]


def share_figure(
    names: Sequence[str],
    series: Mapping[str, tuple[Sequence[float | None], Sequence[float | None]]],
    x_label: str = "share",
) -> str:
    """Shares between 0 and 1 of named rows, the first row on top: a mark a series, and a hollow one for its level of chance.

    Args:
        series: name -> (shares, chances), one of each a row; None where there is none.

    Raises:
        DataError: no rows, or a series of another length.
    """
    if not names or any(len(v) != len(names) or len(c) != len(names) for v, c in series.values()):
        raise DataError(
            f"a share figure needs one share and one chance for each of its {len(names)} rows, at least one"
        )
    with _figure(5.6, 0.9 + 0.42 * len(names)) as (axes, result):
        for i, (name, (values, chances)) in enumerate(series.items()):
            at = [row + 0.12 * (i - (len(series) - 1) / 2) for row in range(len(names))]
            style = {
                "marker": _MARKS[i % len(_MARKS)],
                "linestyle": "",
                "color": COLOURS[i % len(COLOURS)],
                "markersize": 5,
            }
            axes.plot([float("nan") if v is None else float(v) for v in values], at, label=name, **style)
            hollow = [float("nan") if c is None else float(c) for c in chances]
            axes.plot(hollow, at, markerfacecolor="none", alpha=0.7, **style)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel(x_label)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return result[0]


def matched_matrix_figure(
    similarity: Float[Tensor, "f g"],
    first: Sequence[int] | None = None,
    second: Sequence[int] | None = None,
    x_label: str = "features, second",
    y_label: str = "features, first",
    title: str = "",
) -> str:
    """|similarity| of two sets of features, matched pairs in order of strength along the diagonal.

    Args:
        similarity: between -1 and 1, rows of the first set. first, second: matched pairs; None for the order as it is.

    Raises:
        DataError: values outside -1..1, or pairs of unlike length.
    """
    strength = similarity.detach().abs().cpu().double()
    if strength.numel() == 0 or not float(strength.max()) <= 1 + 1e-4:
        raise DataError("a matched matrix shows similarities between -1 and 1, at least one; got others, or none")
    if first is not None and second is not None:
        if len(first) != len(second):
            raise DataError(f"matched pairs come in twos: got {len(first)} and {len(second)} indices")
        pairs = sorted(zip(first, second, strict=True), key=lambda pair: -float(strength[pair[0], pair[1]]))
        strength = strength[[a for a, _ in pairs]][:, [b for _, b in pairs]]
    with _figure(4.2, 3.6) as (axes, result):
        image = axes.imshow(strength.numpy(), cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_title(title, fontsize=10)
        bar = axes.figure.colorbar(image, ax=axes, fraction=0.05)
        bar.outline.set_visible(False)
    return result[0]


def summary_figure(curve: Any) -> str:
    """An `invariants.SummaryCurve`: the model's metric against the dimensions kept."""
    return curve_figure(
        {label: (curve.ks, values) for label, values in curve.values.items()},
        f"dimensions of {curve.hook} kept",
        "accuracy" if curve.metric == "accuracy" else "cross-entropy, nats",
        nulls=[label for label in curve.values if label.startswith("random")],
        levels={"untouched": curve.clean},
        log_x=True,
    )


def wire_figure(curve: Any) -> str:
    """An `evaluation.WireCurve`: faithfulness and completeness against the wires kept."""
    return curve_figure(
        {
            "faithfulness": (curve.wires, curve.faithfulness),
            "random wires": (curve.wires, curve.random_faithfulness),
            "completeness": (curve.wires, curve.completeness),
        },
        f"wires kept (others: {curve.recipe})",
        "share of the metric won back",
        nulls=["random wires"],
        title=curve.segment,
    )


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on; after the block, the SVG text stands in the list."""
    with inked(width, height) as (figure, result):
        yield figure.subplots(), result
