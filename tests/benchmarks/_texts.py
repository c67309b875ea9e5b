"""The texts that the language benchmarks and the demonstration's SAEs are fitted on and tested on.

gpt2-mini was trained on the fitting texts and never saw the held-out ones (src/gatelens/demo/gpt2-mini/README.md).
"""

from __future__ import annotations

from pathlib import Path

from gatelens.data.prose import articles, chapters, prose

SEEN_OF_WIKITEXT = 1_161_235  # bytes; the rest was kept from the model
PARTED = "<|endoftext|>"


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
