"""The texts that the language benchmarks and the demonstration's SAEs are fitted on and tested on.

gpt2-mini was trained on the fitting texts and never saw the held-out ones (src/gatelens/demo/gpt2-mini/README.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from _books import articles, chapters

from gatelens.data.prose import prose

SEEN_OF_WIKITEXT = 1_161_235  # bytes; the rest was kept from the model
PARTED = "<|endoftext|>"

#: a text with fewer chapters or articles has no headings to speak of
HEADED = 5


def documents(data: Path, unheaded: Callable[[str], list[str]] | None = None) -> list[str]:
    """Chapters, stories, passages and articles of the texts at hand.

    Args:
        unheaded: parts a text without headings; None: it is taken as its few chapters or articles.
    """
    found: list[str] = []
    for file in sorted((data / "text").glob("*.txt")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if PARTED in text:
            found += [prose(part) for part in text.split(PARTED)]
        else:
            whole = max(chapters(text), articles(text), key=len)
            found += whole if unheaded is None or len(whole) >= HEADED else unheaded(prose(text))
    return list(dict.fromkeys(text for text in found if text.strip()))


def fitting(data: Path) -> list[str]:
    """Documents that the model was trained on: two novels, short stories, encyclopedia articles."""
    text = data / "text"
    wiki = (text / "wikitext2_test_raw.txt").read_bytes()[:SEEN_OF_WIKITEXT].decode("utf-8", errors="ignore")
    books = [text / f"gutenberg_{name}.txt" for name in ("pride_and_prejudice", "moby_dick")]
    stories = (text / "tinystories_1000.txt").read_text(encoding="utf-8").split(PARTED)
    return (
        [c for book in books for c in chapters(book.read_text(encoding="utf-8"))]
        + articles(wiki)
        + [prose(s) for s in stories]
    )


def held_out(data: Path) -> dict[str, list[str]]:
    """Documents that it never saw: passages of modern novels, and a novel."""
    text = data / "text"
    passages = (text / "lambada_test.txt").read_text(encoding="utf-8").split(PARTED)
    novel = (text / "gutenberg_frankenstein.txt").read_text(encoding="utf-8")
    return {"passages": [prose(p) for p in passages], "novel": chapters(novel)}
