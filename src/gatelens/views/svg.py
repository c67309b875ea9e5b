"""Drawing: an SVG as a value. It shows itself in a notebook, gives its code, and saves itself as a file that stands alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ..store import replace_file
from . import legend
from .isolated import alone, isolated


@dataclass(frozen=True)
class Drawing:
    """A drawing, used as circuitsvis' objects are: returned from a cell, or asked for its code.

    Attributes:
        svg: the `<svg>` element, styled by whatever page it stands in.
        said: what it shows, in words.
        marks: that occur in it, for its legend in a notebook.
    """

    svg: str
    said: str = ""
    marks: frozenset[str] = frozenset()

    @property
    def alone(self) -> str:
        """The element with its own style: light or dark as its reader likes it, light on paper."""
        return alone(self.svg)

    def show_code(self) -> str:
        """The SVG's code; nothing in it is fetched."""
        return self.alone

    def save(self, path: str | Path) -> Path:
        """Write an SVG file."""
        path = Path(path)
        replace_file(path, self.alone.encode("utf-8", "replace"))
        return path

    def _repr_html_(self) -> str:
        key = legend.drawn(self.marks) if self.marks else ""
        return isolated(Markup('<div class="pic">{}{}</div>').format(Markup(self.svg), Markup(key)))

    def __html__(self) -> str:
        return self.svg

    def __str__(self) -> str:
        return self.alone

    def __repr__(self) -> str:
        return self.said or f"Drawing({len(self.svg):,} characters)"
