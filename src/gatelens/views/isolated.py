"""isolated: markup for a notebook's cell that no style of the notebook reaches, and whose own reaches nothing else."""

from __future__ import annotations

from functools import cache

from markupsafe import Markup

from .document import asset, compact_script, compact_style, fragment


def isolated(body: Markup, plain: str) -> str:
    """A shadow root around the markup: declared in it, for pages that are read whole, and made by a few lines of script in
    front ends that put outputs in piece by piece. Where neither is done, the plain text shows.
    """
    return str(fragment("notebook.html.j2", style=style(), script=_script(), body=body, plain=plain))


@cache
def style() -> Markup:
    """Everything that is drawn in a cell is styled by this."""
    return Markup(compact_style(asset("style.css") + asset("picture.css") + asset("notebook.css")))


@cache
def _script() -> Markup:
    return Markup(compact_script(asset("notebook.js")))
