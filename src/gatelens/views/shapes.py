"""The shapes that an engineer knows: OR, AND, k-of-n, buffer; outlined by grade, hatched where amounts matter. And the marks beside
them: cuts, rings, lamps, bars."""

from __future__ import annotations

from functools import cache

from .lettering import text

#: shape -> what stands in it; k-of-n writes its number
WORDS = {"or": "OR", "and": "AND", "and_any": "& ≥1", "copy": "", "sum": "Σ", "unknown": "?"}
#: how deep the back of an OR is, as a share of its width
_BACK = 0.26


def outline(shape: str, x: float, y: float, w: float, h: float) -> str:
    """The path of a shape in the box at x, y."""
    if shape == "or":
        back, middle = f"q{2 * _BACK * w:g} {h / 2:g} 0 {h:g}", f"{y + h / 2:g}"
        return f"M{x:g} {y:g}{back}Q{x + 0.72 * w:g} {y + h:g} {x + w:g} {middle}Q{x + 0.72 * w:g} {y:g} {x:g} {y:g}z"
    if shape in ("and", "and_any"):
        return f"M{x:g} {y:g}h{0.42 * w:g}a{0.58 * w:g} {h / 2:g} 0 0 1 0 {h:g}h{-0.42 * w:g}z"
    if shape == "copy":
        return f"M{x:g} {y:g}l{w:g} {h / 2:g}l{-w:g} {h / 2:g}z"
    r = 4
    return (
        f"M{x + r:g} {y:g}h{w - 2 * r:g}q{r} 0 {r} {r}v{h - 2 * r:g}q0 {r} {-r} {r}h{2 * r - w:g}q{-r} 0 {-r} {-r}"
        f"v{2 * r - h:g}q0 {-r} {r} {-r}z"
    )


def entry(shape: str, share: float, w: float) -> float:
    """How far inside its box a shape begins, at this share of its height: the back of an OR is hollow."""
    return 4 * _BACK * w * share * (1 - share) if shape == "or" else 0.0


def drawn(
    shape: str, grade: str, at_least: int, box: tuple[float, float, float, float], amounts: bool, lettered: bool = True
) -> str:
    """A shape with its outline and its word."""
    x, y, w, h = box
    path = outline(shape, x, y, w, h)
    double = f'<path class="g2" d="{path}"/><path class="g3" d="{path}"/>' if grade == "verified" else ""
    hatch = f'<path class="h" transform="translate({x:g} {y:g})" d="{_hatching(shape, w, h)}"/>' if amounts else ""
    word = f"≥{at_least}" if shape == "k_of_n" else WORDS[shape]
    middle = x + (0.56 if shape == "or" else 0.46 if shape in ("and", "and_any") else 0.5) * w
    letters = text(middle, y + h / 2 + 4, word, "k", "middle") if word and lettered else ""
    return f'<path class="g {grade}" d="{path}"/>{hatch}{double}{letters}'


def cut(x: float, y: float) -> str:
    """The mark of a level on a wire."""
    return f'<path class="c" d="M{x:g} {y - 7:g}v14"/>'


def ring(x: float, y: float) -> str:
    """NOT, before a shape that begins at x."""
    return f'<circle class="n" cx="{x - 4:g}" cy="{y:g}" r="4"/>'


def lamp(x: float, y: float, lit: bool) -> str:
    """Whether an input is on."""
    return f'<circle class="z{"" if lit else " x"}" cx="{x:g}" cy="{y:g}" r="3.6"/>'


def wire(path: str, wide: float, negative: bool, faint: bool = False) -> str:
    """A wire: dashed where it takes away."""
    sign = f"{' m' if negative else ''}{' x' if faint else ''}"
    dash = f' stroke-dasharray="{3 + wide:.0f} {2.5 + wide / 2:.1f}"' if negative else ""
    return f'<path class="w{sign}" stroke-width="{wide:.1f}"{dash} d="{path}"/>'


def bar(x: float, y: float, wide: float, share: float, null: float | None) -> str:
    """A share as a bar, its null as an upright mark."""
    mark = (
        f'<rect class="d" x="{x + wide * null - 1:g}" y="{y - 3:g}" width="2" height="12"/>' if null is not None else ""
    )
    return (
        f'<rect class="t" x="{x:g}" y="{y:g}" width="{wide:g}" height="6"/>'
        f'<rect class="a" x="{x:g}" y="{y:g}" width="{wide * min(max(share, 0), 1):.1f}" height="6"/>{mark}'
    )


@cache
def _hatching(shape: str, w: float, h: float) -> str:
    """Slanting lines across a shape, cut at its outline."""
    step, lines = 6.0, []
    offset = step
    while offset < w + h:
        inside = [t / 2 for t in range(int(2 * offset) + 1) if _inside(shape, t / 2, offset - t / 2, w, h)]
        if inside:
            lines.append(f"M{inside[0]:g} {offset - inside[0]:g}L{inside[-1]:g} {offset - inside[-1]:g}")
        offset += step
    return "".join(lines)


def _inside(shape: str, x: float, y: float, w: float, h: float) -> bool:
    """Whether a point is inside a shape of that size, a little away from its outline."""
    if not (1 < x < w - 1 and 1 < y < h - 1):
        return False
    off = abs(2 * y / h - 1)
    if shape == "or":
        return entry("or", y / h, w) + 1 < x < w * (1 - 0.75 * off**1.6) - 1
    if shape in ("and", "and_any"):
        return x < 0.42 * w + 0.58 * w * max(1 - off * off, 0) ** 0.5 - 1
    return x < w * (1 - off) - 1 if shape == "copy" else True
