"""Plain files of books and articles as running text: what a language model trained on prose expects to read."""

from __future__ import annotations

import re

_STRAIGHT = str.maketrans(
    {"“": '"', "”": '"', "‘": "'", "’": "'", "—": "--", "–": "-", "…": "...", "\u00a0": " ", "_": "", "\r": ""}
)


def prose(text: str) -> str:
    """Straight quotes, `--` for a dash, the lines of a paragraph joined, a blank line between paragraphs."""
    paragraphs = re.split(r"\n\s*\n", text.translate(_STRAIGHT))
    joined = (re.sub(r"\s+", " ", p).strip() for p in paragraphs)
    return "\n\n".join(p for p in joined if p)
