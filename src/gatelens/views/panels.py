"""Token panels of circuitsvis inside our pages: escaped, finite, its bundle put in once.

circuitsvis 1.43 sets a token as markup, divides by the largest value, and loses every colour to one NaN; so tokens are
escaped before they reach it, values that are not finite become 0 and are counted, and the scale is always given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.util import find_spec
from itertools import count as count_from
from pathlib import Path
from typing import Any
from zlib import crc32

from markupsafe import Markup

from ..errors import DataError, GateLensError
from .document import Html, count, document, fragment, inert_json, visible

#: the colours of our pages, as circuitsvis takes them
_POSITIVE, _NEGATIVE = "#2166ac", "#b35806"


@dataclass(frozen=True)
class Panel:
    """One strip of tokens, coloured by a value each.

    Attributes:
        props: what the component is given.
        not_finite: values that were replaced by 0.
    """

    props: dict[str, Any]
    not_finite: int = 0


def panel(tokens: Sequence[str], values: Sequence[float], largest: float | None = None) -> Panel:
    """Escaped, finite properties for circuitsvis' `ColoredTokens`.

    Args:
        tokens: texts, shown as text whatever they hold.
        values: one a token.
        largest: the value of full colour; None for the largest there is.

    Raises:
        DataError: not one value a token.
    """
    if len(tokens) != len(values):
        raise DataError(f"a panel takes one value a token; got {len(tokens)} tokens and {len(values)} values")
    numbers = [float(v) for v in values]
    finite = [v if math.isfinite(v) else 0.0 for v in numbers]
    top = max(map(abs, finite), default=0.0) if largest is None else float(largest)
    top = top if math.isfinite(top) and top > 0 else 1.0
    low = -top if min(finite, default=0.0) < 0 else 0.0
    texts = [escape(visible(t, spaces=not t.strip(" "))) or "∅" for t in tokens]
    props = {
        "tokens": texts,
        "values": finite,
        "minValue": low,
        "maxValue": top,
        "positiveColor": _POSITIVE,
        "negativeColor": _NEGATIVE,
    }
    return Panel(props, sum(not math.isfinite(v) for v in numbers))


#: whether the bundle is in this session's notebook already
_given = count_from(0)


@dataclass(frozen=True, repr=False)
class TokenPanels(Html):
    """A page of strips that shows itself in a cell as circuitsvis' objects do.

    The bundle goes with the first panels of a session alone; every strip is in the cell as plain coloured text too, so
    that the stored notebook is complete without it.
    """

    groups: tuple[tuple[str, str, tuple[Panel, ...]], ...] = ()

    def _repr_html_(self) -> str:
        return self.show_code(bundled=next(_given) == 0)

    def show_code(self, bundled: bool = True) -> str:
        """Markup for a cell or a page of one's own; nothing in it is fetched.

        Args:
            bundled: with circuitsvis' bundle, 1.3 MB; False where the page has it already.
        """
        parts, calls = [], []
        for heading, note, panels in self.groups:
            parts.append(Markup("<p><b>{}</b> {}</p>").format(heading, note))
            for one in panels:
                held = inert_json(one.props)
                name = f"glcv-{crc32(held.encode('utf-8', 'replace')):08x}-{len(calls)}"
                parts.append(Markup('<div id="{}" style="{}">{}</div>').format(name, _GROUND, _plain_strip(one)))
                calls.append(f'r("{name}",{held});')
        script = (
            'window.CircuitsVis&&(function(){function r(n,p){var e=document.getElementById(n);if(e){e.textContent="";'
            f"CircuitsVis.render(n,CircuitsVis.ColoredTokens,p)}}}}{''.join(calls)}}})()"
        )
        scripts = [bundle(), script] if bundled else [script]
        return str(Markup("").join(parts)) + "".join(f"<script>{s}</script>" for s in scripts)


#: circuitsvis writes black on its own light colours
_GROUND = "background:#fff;color:#1a1f24;padding:2px 4px;margin:2px 0;width:fit-content;max-width:100%;overflow-x:auto"


def _plain_strip(one: Panel) -> Markup:
    """The same tokens with the same colours, without a script."""
    top, done = one.props["maxValue"], []
    for text, value in zip(one.props["tokens"], one.props["values"], strict=True):
        channels = (33, 102, 172) if value >= 0 else (179, 88, 6)
        strength = min(abs(value) / top, 1.0) if top else 0.0
        r, g, b = (round(255 + (c - 255) * strength) for c in channels)
        ink = "#fff" if strength > 0.6 else "#1a1f24"
        style = f"background:rgb({r},{g},{b});color:{ink};white-space:pre"
        done.append(Markup('<span style="{}" title="{}">{}</span>').format(style, f"{value:.3g}", Markup(text)))
    return Markup("").join(done)


def token_panels(
    groups: Sequence[tuple[str, Sequence[tuple[Sequence[str], Sequence[float]]]]], title: str = "Tokens"
) -> TokenPanels:
    """A page of circuitsvis panels: return it in a notebook, save it, or ask it for its code.

    Args:
        groups: (heading, [(tokens, values), ...]) each; plain lists do. A group has one colour scale.
    """
    data: dict[str, Any] = {}
    shown, kept = [], []
    for heading, strips in groups:
        top = max((abs(float(v)) for _, values in strips for v in values if math.isfinite(float(v))), default=0.0)
        panels = [panel(tokens, values, top) for tokens, values in strips]
        names = [f"cv{len(data) + k}" for k in range(len(panels))]
        data |= {name: p.props for name, p in zip(names, panels, strict=True)}
        bad = sum(p.not_finite for p in panels)
        note = f"{count(bad, 'value')} not finite, shown as 0" if bad else ""
        shown.append((visible(heading), names, note))
        kept.append((visible(heading), note, tuple(panels)))
    body = fragment("panels.html.j2", title=visible(title), groups=shown)
    page = document(title, body, data={f"{name}-data": props for name, props in data.items()}, scripts=[bundle()])
    return TokenPanels(page.text, groups=tuple(kept))


def strips(names: Sequence[str]) -> Markup:
    """The empty places that the page's script fills with panels."""
    return Markup("").join(Markup('<div class="cv" id="{}"></div>').format(name) for name in names)


@cache
def bundle() -> str:
    """circuitsvis' browser bundle, fit to stand in a script element of our page.

    Raises:
        GateLensError: circuitsvis is not installed, or lacks the bundle.
    """
    spec = find_spec("circuitsvis")
    places = list(spec.submodule_search_locations or []) if spec else []
    path = Path(places[0]) / "dist" / "cdn" / "iife.js" if places else None
    if path is None or not path.is_file():
        raise GateLensError(
            "token panels need circuitsvis with its browser bundle (dist/cdn/iife.js); install circuitsvis>=1.43.3"
        )
    return path.read_text("utf-8").replace("</script", "<\\/script").replace("<!--", "<\\!--")
