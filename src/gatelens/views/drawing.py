"""Drawings of ours as SVG: gate glyphs, bars, histograms, the wires between two columns of features."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

#: gate kind -> its outline in a 32 x 24 box; stroke and fill come from the style
GLYPHS = {
    "or": '<path d="M6 3h5q10 0 16 9q-6 9-16 9h-5q5-9 0-18z"/><path class="w" d="M1 7.5h6.6M1 16.5h6.6M27 12h4"/>',
    "and": '<path d="M7 3h9a9 9 0 0 1 0 18h-9z"/><path class="w" d="M1 7.5h6M1 16.5h6M25 12h6"/>',
    "and_not": '<path d="M10 3h7a9 9 0 0 1 0 18h-7z"/><circle cx="7.4" cy="16.5" r="2.4"/><path class="w" d="M1 7.5h9M1 16.5h4M26 12h5"/>',
    "k_of_n": '<rect x="7" y="3" width="18" height="18" rx="2"/>'
    '<path class="w" d="M1 7h6M1 12h6M1 17h6M25 12h6"/><path class="w" d="M12.5 8l6 3.2l-6 3.2M12.5 17.4h6"/>',
    "copy": '<path d="M8 4l15 8l-15 8z"/><path class="w" d="M1 12h7M23 12h8"/>',
    "adder": '<circle cx="16" cy="12" r="9"/><path class="w" d="M1 8h7.5M1 16h7.5M25 12h6M11.5 12h9M16 7.5v9"/>',
    "mixed": '<rect x="7" y="3" width="18" height="18" rx="2"/>'
    '<path class="w" d="M1 7h6M1 12h6M1 17h6M25 12h6"/><path class="w" d="M11 9.5q2.5-3.5 5 0t5 0M11 15.5q2.5-3.5 5 0t5 0"/>',
    "not_read": '<rect class="open" x="7" y="3" width="18" height="18" rx="2"/>'
    '<path class="w" d="M1 12h6M25 12h6M13 9.5q0-3 3-3t3 2.8q0 2-3 3.2v1.5M16 16.6v.9"/>',
}

#: gate kind -> what it is called
KIND_NAMES = {
    "or": "OR",
    "and": "AND",
    "and_not": "AND-NOT",
    "k_of_n": "k of n",
    "copy": "copy",
    "adder": "adder",
    "mixed": "mixed",
    "not_read": "not read",
}


def glyph_symbols() -> Markup:
    """All glyphs, defined once in a page."""
    symbols = "".join(f'<symbol id="g-{kind}" viewBox="0 0 32 24">{shape}</symbol>' for kind, shape in GLYPHS.items())
    return Markup(f'<svg class="defs" width="0" height="0" aria-hidden="true">{symbols}</svg>')


def glyph(kind: str, whole: bool = False) -> Markup:
    """A gate's glyph; `whole` draws it in place, else it is taken from the page's symbols."""
    kind = kind if kind in GLYPHS else "not_read"
    inner = Markup(GLYPHS[kind]) if whole else Markup(f'<use href="#g-{kind}"/>')
    return Markup(
        f'<svg class="glyph" viewBox="0 0 32 24" width="32" height="24" role="img" aria-label="{KIND_NAMES[kind]}">{inner}</svg>'
    )


def bars(counts: Sequence[int]) -> Markup:
    """A histogram; heights by square root, so that rare large values stay visible."""
    top = max(counts, default=0)
    width, height = 240, 44
    step = width / max(len(counts), 1)
    path = "".join(
        f"M{i * step:.1f} {height}v{-height * (c / top) ** 0.5:.1f}h{step - 1:.1f}V{height}z"
        for i, c in enumerate(counts)
        if top and c
    )
    return Markup(
        f'<svg class="hist" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
        f'<path d="{path}"/><path class="axis" d="M0 {height - 0.5}H{width}"/></svg>'
    )
