"""How wide texts are in a drawing: an estimate on the safe side, for a drawing is made where no browser measures it."""

from __future__ import annotations

import unicodedata
from html import escape

#: widths in units of the font size, of the widest face that browsers commonly fall back to
_WIDTHS = {
    **dict.fromkeys("iljI.,:;'|! ", 0.32),
    **dict.fromkeys("ftr()[]-/\\·", 0.41),
    **dict.fromkeys('sczJ"*', 0.53),
    **dict.fromkeys("mMW@%", 0.98),
    **dict.fromkeys("wGOQDNHU&", 0.8),
    **dict.fromkeys("ABCEFKLPRSTVXYZ", 0.68),
    **dict.fromkeys("=+<>~≈→≥−_", 0.84),
}
_OTHER, _WIDE, _BOLD = 0.62, 1.05, 1.1


class _Widths(dict):
    """Widths of characters, each looked up once."""

    def __missing__(self, c: str) -> float:
        wide = unicodedata.east_asian_width(c) in "WF" or ord(c) > 0x2E7F
        self[c] = 0.0 if unicodedata.combining(c) else _WIDE if wide else _OTHER
        return self[c]


_widths = _Widths(_WIDTHS)


def width_of(text: str, size: float, bold: bool = False) -> float:
    """How wide a text is, in the units of its size."""
    return size * sum(map(_widths.__getitem__, text)) * (_BOLD if bold else 1.0)


def fitted(text: str, room: float, size: float, bold: bool = False) -> str:
    """The text, cut with an ellipsis where it would be wider than its room."""
    if width_of(text, size, bold) <= room:
        return text
    kept = ""
    for c in text:
        if width_of(kept + c + "…", size, bold) > room:
            break
        kept += c
    return kept.rstrip() + "…"


def wrapped(words: list[str], room: float, size: float, lines: int, bold: bool = False, joint: str = " ") -> list[str]:
    """Words on so many lines at most; what does not fit is cut with an ellipsis. The joint stays at the end of its line."""
    done: list[str] = []
    for place, word in enumerate(words):
        piece = word + (joint.rstrip() if place < len(words) - 1 else "")
        longer = f"{done[-1]} {piece}" if done else piece
        if done and width_of(longer, size, bold) <= room:
            done[-1] = longer
        elif len(done) < lines:
            done.append(piece)
        else:
            done[-1] = fitted(longer, room, size, bold)
            break
    return [fitted(line, room, size, bold) for line in done]


def text(x: float, y: float, said: str, kind: str = "", anchor: str = "") -> str:
    """An SVG text; what it says is escaped. `kind` names its class, `anchor` where x lies: "middle" or "end"."""
    of = f' class="{kind}"' if kind else ""
    at = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text{of}{at} x="{x:g}" y="{y:g}">{escape(said)}</text>'
