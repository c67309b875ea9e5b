"""Plain files of books and of an encyclopedia, cut into chapters and articles."""

from __future__ import annotations

import re

from gatelens.data.prose import prose

_CHAPTER = re.compile(r"^[ \t_\[]*(?:chapter|letter|book|volume|part)\b[ .]*(?:the )?[0-9ivxlc]+\b.*$", re.I | re.M)
_ILLUSTRATION = re.compile(r"\[Illustration.*?\]", re.S)
_GUTENBERG = re.compile(r"\*\*\* ?(?:START|END) OF TH[^\n]*\*\*\*")
_ARTICLE = re.compile(r"^ = [^=\n].*? = *$", re.M)
_WIKI_HEADING = re.compile(r"^ =.*= *$", re.M)


def chapters(book: str, shortest: int = 1000) -> list[str]:
    """The chapters of a Gutenberg book as prose; headings, contents and illustration notes are dropped."""
    parts = _GUTENBERG.split(book)
    body = _ILLUSTRATION.sub("", max(parts, key=len))
    texts = (prose(part) for part in _CHAPTER.split(body))
    return [t for t in texts if len(t) >= shortest]


def articles(wikitext: str, shortest: int = 500) -> list[str]:
    """The articles of a raw WikiText file, its spaced punctuation closed up and its headings dropped."""
    texts = (_WIKI_HEADING.sub("", part) for part in _ARTICLE.split(wikitext))
    return [t for t in (prose(_close_up(t).replace("\n", "\n\n")) for t in texts) if len(t) >= shortest]


def _close_up(text: str) -> str:
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([.,;:!?)\]%]|'s\b|n't\b|'\w+\b)", r"\1", text)
    text = re.sub(r"([(\[$]) ", r"\1", text)
    return re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
