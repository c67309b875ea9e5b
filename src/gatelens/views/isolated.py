"""isolated: markup for a notebook's cell that no style of the notebook reaches, and whose own reaches nothing else."""

from __future__ import annotations

import base64
import json
import re
from functools import cache

from markupsafe import Markup

from .document import asset, compact_script, compact_style, fragment

#: pixels across of a drawing where no style of ours reaches
_WIDE = 460
#: figures stay as they are where a cell would hold more characters than this with them as pictures
_MOST = 250_000


def isolated(body: Markup) -> str:
    """The markup, moved by a few lines of script into a shadow root with the style of its own.

    Its drawings stand in it as pictures, which the script opens: where a notebook is not trusted, scripts, styles and SVG are taken
    out of it, and pictures, tables and words are left.
    """
    return str(fragment("notebook.html.j2", script=_script(), body=Markup(_pictured(str(body)))))


def alone(svg: str) -> str:
    """A drawing with its own style: light or dark as its reader likes it, light on paper."""
    head, rest = svg.split(">", 1)
    head = head.replace('class="gp', 'xmlns="http://www.w3.org/2000/svg" class="gp alone', 1)
    return f"{head}><style>{_picture_style()}</style>{rest}"


def _pictured(body: str) -> str:
    """The markup with every drawing of ours as a picture that holds its own style, and without the controls of a page's script."""
    body = re.sub(r"<form[^>]* hidden>.*?</form>", "", body, flags=re.DOTALL)
    drawings = re.sub(r'<svg class="gp.*?</svg>', lambda found: _picture(found[0]), body, flags=re.DOTALL)
    figures = re.sub(r"<svg xmlns.*?</svg>", lambda found: _figure(found[0]), drawings, flags=re.DOTALL)
    return figures if len(figures) < _MOST else drawings


def _picture(svg: str) -> str:
    said = re.search(r'aria-label="([^"]*)"', svg.split(">", 1)[0])
    code = base64.b64encode(alone(svg).encode("utf-8", "replace")).decode()
    return (
        f'<img class="drawing" width="{_WIDE}" alt="{said[1] if said else ""}" src="data:image/svg+xml;base64,{code}">'
    )


def _figure(svg: str) -> str:
    """Curves or matrices as a picture, on white: their ink is the page's, which a picture does not know."""
    alone = svg.replace(' style="', ' style="background:#fff;', 1)
    code = base64.b64encode(alone.encode("utf-8", "replace")).decode()
    return f'<img class="drawing" width="720" alt="figure" src="data:image/svg+xml;base64,{code}">'


@cache
def style() -> Markup:
    """Everything that is drawn in a cell is styled by this."""
    return Markup(compact_style(asset("style.css") + asset("picture.css") + asset("notebook.css")))


@cache
def _picture_style() -> str:
    return compact_style(asset("picture.css") + asset("picture_alone.css"))


@cache
def _script() -> Markup:
    held = json.dumps(str(style())).replace("<", "\\u003c")
    return Markup(compact_script(asset("notebook.js")).replace('"STYLE"', held))
