"""Contrast of every colour that text is set in, on the grounds that it is set on, in both themes (WCAG 2 relative luminance)."""

from __future__ import annotations

import re

import pytest

from gatelens.views.document import asset


def theme(selector: str) -> dict[str, tuple[float, ...]]:
    block = re.search(re.escape(selector) + r"\{([^}]*)\}", asset("style.css"))
    if block is None:
        raise AssertionError(f"no rule {selector}")
    found = {}
    for name, value in re.findall(r"--([a-z-]+):([^;}]+)", block[1]):
        if value.startswith("#"):
            digits = value[1:] if len(value) == 7 else "".join(2 * c for c in value[1:])
            found[name] = tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))
        elif re.fullmatch(r"[\d, ]+", value):
            found[name] = tuple(map(float, value.split(",")))
    return found


def luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_on_white_is_21():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


@pytest.mark.parametrize("selector", [".gl", ".gl.dark"])
@pytest.mark.parametrize("ink", ["ink", "soft", "plus", "minus", "good", "bad"])
@pytest.mark.parametrize("ground", ["bg", "soft-bg"])
def test_text_can_be_read(selector, ink, ground):
    colours = theme(selector)
    assert contrast(colours[ink], colours[ground]) >= 4.5


@pytest.mark.parametrize("selector", [".gl", ".gl.dark"])
def test_a_token_of_full_strength_can_be_read(selector):
    colours = theme(selector)
    alpha = float(re.search(r"\.a9\{background:rgba\(var\(--mark\),([.\d]+)\)", asset("style.css"))[1])
    ground = tuple(alpha * m + (1 - alpha) * b for m, b in zip(colours["mark"], colours["bg"], strict=True))
    assert contrast(colours["ink"], ground) >= 4.5
