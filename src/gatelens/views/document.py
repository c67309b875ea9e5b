"""Html: a page or a fragment as a value; one file that needs no network, under a strict page policy."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from .. import __version__
from ..errors import NonFiniteError
from ..errors.door import at_the_door
from ..store import replace_file

#: the page's own programs, run as one
SCRIPTS = ("explore.js", "script.js", "prompts.js")

#: a notebook keeps every output in its file: a value that would take more shows as it prints
NOTEBOOK_LIMIT = 300_000
#: left of a framed page in a notebook that is not trusted
_UNTRUSTED = "A page of GateLens stands here; it shows when the notebook is trusted, or when this cell is run."
#: a page up to this size is framed in a cell; a larger one is saved beside the notebook
FRAME_LIMIT = 4_000_000


@at_the_door
@dataclass(frozen=True)
class Html:
    """A whole page (`save` it) or a fragment (put it into a page or a notebook).

    Attributes:
        text: the markup, escaped already.
        whole: a page with its own head, style and policy.
    """

    text: str
    whole: bool = True

    def save(self, path: str | Path) -> Path:
        """Write the file in one step; an earlier one stays until the new one is whole."""
        path = Path(path)
        replace_file(path, self.text.encode("utf-8", "replace"))
        return path

    def __html__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Html({'page' if self.whole else 'fragment'}, {len(self.text.encode('utf-8', 'replace')):,} bytes)"

    def _repr_html_(self) -> str:
        """Framed, so that neither the notebook's style nor the page's touches the other; a large page is saved beside the
        notebook, and linked."""
        if not self.whole:
            return self.text
        data = self.text.encode("utf-8", "replace")
        if len(data) > FRAME_LIMIT:
            path = self.save(f"gatelens-{hashlib.sha256(data).hexdigest()[:10]}.html")
            size = f"{len(data) / 1e6:.1f} MB"
            return f'<p>A page of {size}, saved beside the notebook: <a href="{path}" target="_blank">{path}</a></p>'
        return (
            '<iframe sandbox="allow-scripts allow-downloads" width="100%" height="720" style="border:0" '
            f'title="GateLens page" srcdoc="{escape(self.text)}">{_UNTRUSTED}</iframe>'
        )


@cache
def environment() -> jinja2.Environment:
    """Our templates; every value is escaped unless one of our own functions made it."""
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("gatelens.views"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(figure=figure, percent=percent, count=count, visible=visible)
    return env


def fragment(template: str, **values: Any) -> Markup:
    """A template filled in."""
    return Markup(environment().get_template(template).render(**values))


def document(
    title: str,
    body: Markup | str,
    data: Mapping[str, Any] | None = None,
    scripts: Sequence[str] = (),
    packs: Mapping[str, Any] | None = None,
) -> Html:
    """One self-contained page around a body.

    Args:
        body: markup; a plain string is escaped.
        data: element id -> value, put in as inert JSON.
        packs: element id -> value, put in as JSON that is deflated: large, and only read when it is asked for.
        scripts: further scripts of ours or of a dependency, run before the page's own.

    The policy allows these very scripts by their hashes, inline style, pictures inside the page, and nothing else: no
    request of any kind, no script that came in with the data, no handler in an attribute.
    """
    own = compact_script("\n".join(asset(name) for name in SCRIPTS))
    programs = [Markup(script) for script in (*scripts, own)]
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src " + " ".join(f"'sha256-{_hash(p)}'" for p in programs),
            "style-src 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    text = fragment(
        "document.html.j2",
        title=visible(title),
        policy=policy,
        style=Markup(compact_style(asset("style.css") + asset("picture.css"))),
        body=body,
        data={name: inert_json(value) for name, value in (data or {}).items()},
        packs={name: deflated(value) for name, value in (packs or {}).items()},
        scripts=programs,
        version=__version__,
    )
    return Html(str(text))


@cache
def asset(name: str) -> str:
    return resources.files("gatelens.views").joinpath(name).read_text("utf-8")


def inert_json(value: Any) -> Markup:
    """JSON that can stand in a script element: no `<`, no line separators that scripts read as line ends.

    Raises:
        NonFiniteError: NaN or infinity anywhere; turn them into None first.
    """
    text = _json(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError as error:
        raise NonFiniteError(
            f"data of a page must be finite numbers, got NaN or infinity ({error}). Give None for a missing figure"
        ) from error


#: zlib's level: 9 takes five times as long as this for a tenth of the size
_PACKED = 5


def deflated(value: Any) -> str:
    """JSON as deflated bytes in base64, which no browser takes for markup.

    Raises:
        NonFiniteError: NaN or infinity anywhere.
    """
    return base64.b64encode(zlib.compress(_json(value).encode("utf-8", "replace"), _PACKED)).decode()


def finite(value: Any) -> Any:
    """The same value with None for every number that is not finite."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def figure(value: float | int | None, digits: int = 2) -> str:
    """A figure for people: counts with separators, others to `digits` places, an en dash for one that is missing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = f"{value:,.{digits}f}"
    return text if text[0] != "-" else text[1:] if not text.strip("-0.") else f"−{text[1:]}"


def percent(value: float | None) -> str:
    """A share for people, never rounded to 0 % or 100 % when it is not."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or value == 1 or 0.0995 <= value < 0.995:
        return f"{100 * value:.0f} %"
    if value >= 0.995:
        return f"{min(100 * value, 99.9):.1f} %"
    return f"{100 * value:.1f} %" if value >= 0.0005 else "< 0.1 %"


def count(number: int, noun: str, plural: str = "") -> str:
    """`plural`: of what takes more than an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


_MARKS = {"\n": "⏎", "\r": "␍", "\t": "⇥"}


def visible(text: Any, spaces: bool = False) -> str:
    """Text in which nothing hides: line ends and tabs as marks, other control characters as \\xNN, zero-width ones as ∅.

    Args:
        spaces: mark spaces too, as `·`.
    """
    said = str(text)
    if said.isascii() and said.isprintable() and not (spaces and " " in said):
        return said
    return "".join(_mark(c, spaces) for c in said)


def _mark(c: str, spaces: bool) -> str:
    if " " < c <= "~":
        return c
    if c in _MARKS:
        return _MARKS[c]
    if c == " ":
        return "·" if spaces else c
    kind = unicodedata.category(c)
    if kind == "Cc":
        return f"\\x{ord(c):02x}"
    if kind in ("Cf", "Zl", "Zp"):
        return "∅"
    return "\ufffd" if kind == "Cs" else c


def compact_script(text: str) -> str:
    """The program without comments and indentation."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("//"))


def compact_style(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return re.sub(r"\s*([{};,])\s*", r"\1", re.sub(r"\s+", " ", text)).strip()


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
