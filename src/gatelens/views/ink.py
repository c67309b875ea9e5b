"""What every figure of curves is drawn with: SVG text in the page's own colour (`currentColor`), so that it reads on light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: replaced by `currentColor`; matplotlib knows no such colour, and draws nothing else in this one
INK = "#010203"
#: told apart by hue and by lightness, on white and on black, also by readers who see red and green alike (Okabe and Ito)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@contextmanager
def inked(width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """A matplotlib figure of so many inches to draw on; after the block, the SVG text stands in the list. Text stays text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",  # letters stay letters
        "svg.hashsalt": "gatelens",  # the same bytes for the same figure
        "font.family": "sans-serif",
        "font.size": 9,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    }
    result: list[str] = []
    with rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, result
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    result.append(_inline(buffer.getvalue()))


def _inline(svg: str) -> str:
    """The `<svg>` element alone, scalable, without declarations and metadata, its ink the page's own colour."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" style="max-width:100%;height:auto">{rest}'.replace(INK, "currentColor").strip()
