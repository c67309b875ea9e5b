"""Makes the text that the demo reads SmolLM2 on: written by SmolLM2 itself, so that it is ours to give away and was never trained on.

    python tools/write_smollm2_sample.py    # about 25 CPU minutes: 320 documents of 160 tokens; what is there may be used earlier

Every document goes on from one of many openings, which is kept; what repeats itself is left out. Sampled at temperature .75.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import gatelens as gl

OUT = Path(__file__).resolve().parents[1] / "dictionaries" / "smollm2" / "src" / "gatelens_smollm2" / "sample.txt"
PARTED = "\n<|endoftext|>\n"
KINDS = (
    "Once upon a time, there was {}", "The history of {} begins", "In the morning, {}", "A letter to a friend about {}:",
    "Scientists have studied {} for years.", "Chapter 1. {}", '"I never thought about {}," said the old man.',
    "How to understand {}:", "Yesterday the newspaper wrote about {}.", "Many people believe that {}", "What is {}?",
    "My mother used to talk about {}", "An essay on {}.", "The city council met to discuss {}.",
)  # fmt: skip
SUBJECTS = (
    "the sea", "a small dog", "the war", "music", "the moon", "money", "a garden", "the king", "bread", "winter", "trains",
    "a lost key", "the brain", "children", "an old house", "trees", "the river", "work", "fire", "the law", "birds", "a teacher",
    "energy", "the market", "a ship", "sleep", "numbers", "the church", "a doctor", "light", "horses", "the election",
    "water", "friendship", "a mountain", "food", "the computer", "stars", "a murder", "football",
)  # fmt: skip


def openings(count: int, seed: int) -> list[str]:
    """So many openings, no two alike before all have been used."""
    every = [kind.format(subject) for kind, subject in itertools.product(KINDS, SUBJECTS)]
    random.Random(seed).shuffle(every)
    return list(itertools.islice(itertools.cycle(every), count))


def written(model: Any, starts: list[str], tokens: int, at_once: int) -> Iterator[str]:
    """Each opening gone on with."""
    by_length: dict[int, list[str]] = {}
    for start in starts:  # openings of equal length need no padding
        by_length.setdefault(model.to_tokens(start).shape[1], []).append(start)
    for group in by_length.values():
        for first in range(0, len(group), at_once):
            given = model.to_tokens(group[first : first + at_once])
            with torch.no_grad():
                found = model.generate(
                    given, max_new_tokens=tokens, temperature=0.75, top_p=0.92, stop_at_eos=False, verbose=False
                )
            for row in found:
                yield model.tokenizer.decode(row[1:], skip_special_tokens=True)


def is_prose(text: str) -> bool:
    """No page that says the same again and again."""
    words = text.split()
    return len(words) > 60 and len(set(words)) > 0.45 * len(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=320)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    model = gl.load_model("smollm2")
    starts = openings(arguments.documents, arguments.seed)
    kept: list[str] = []
    for text in written(model, starts, arguments.tokens, arguments.at_once):
        kept += [text.strip()] if is_prose(text) else []
        if len(kept) % 16 == 0:
            arguments.out.write_text(PARTED.join(kept) + "\n", encoding="utf-8")
    arguments.out.write_text(PARTED.join(kept) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
