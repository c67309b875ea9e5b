"""Token windows as markup: one line a context, the tokens shaded by value. Written without templates: a page has thousands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any

from markupsafe import Markup

from .contexts import shown_text
from .document import figure


def context_line(window: Any, largest: float) -> Markup:
    """A window around a row: its value, what stands before, the token in the middle and what follows; all of it escaped."""
    return context_lines([window], largest)


def context_lines(windows: Sequence[Any], largest: float) -> Markup:
    """Windows one under the other."""
    return Markup("".join([_line(window, largest) for window in windows]))


def _line(window: Any, largest: float) -> str:
    shaded = [_token(t, largest) if t.value > 0 or t.centre else _plain(t.text) for t in window.tokens]
    before, after = "".join(shaded[: window.middle]), "".join(shaded[window.middle :])
    return (
        f'<p class="ctx"><span class="v">{figure(window.value)}</span>'
        f'<span class="l"><span>{before}</span></span><span class="w">{after}</span></p>'
    )


@cache
def _plain(text: str) -> str:
    return escape(shown_text(text))


def _token(token: Any, largest: float) -> str:
    hint = f' title="{escape(token.spelled)} {figure(token.value, 3)}"' if token.value > 0 else ""
    return f'<span class="{token.shade(largest)}"{hint}>{escape(token.shown)}</span>'
