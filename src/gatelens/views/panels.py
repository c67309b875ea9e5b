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
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..errors import DataError, GateLensError
from .document import Html, count, document, fragment, visible

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


def token_panels(
    groups: Sequence[tuple[str, Sequence[tuple[Sequence[str], Sequence[float]]]]], title: str = "Tokens"
) -> Html:
    """A page of circuitsvis panels.

    Args:
        groups: (heading, [(tokens, values), ...]) each; plain lists do. A group has one colour scale.
    """
    data: dict[str, Any] = {}
    shown = []
    for heading, strips in groups:
        top = max((abs(float(v)) for _, values in strips for v in values if math.isfinite(float(v))), default=0.0)
        panels = [panel(tokens, values, top) for tokens, values in strips]
        names = [f"cv{len(data) + k}" for k in range(len(panels))]
        data |= {name: p.props for name, p in zip(names, panels, strict=True)}
        bad = sum(p.not_finite for p in panels)
        shown.append((visible(heading), names, f"{count(bad, 'value')} not finite, shown as 0" if bad else ""))
    body = fragment("panels.html.j2", title=visible(title), groups=shown)
    return document(title, body, data={f"{name}-data": props for name, props in data.items()}, scripts=[bundle()])


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
