"""Pages: their size, how fast they open, and that nothing is fetched or run that came in with the data."""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gatelens.bench import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.browser.chromium import PROGRAM, REASON, open_page, timing
from tests.support.pages import planted

SEEDS = (0, 1, 2)

HOSTILE = [
    "</script><script>window.ran=1</script>",
    "<img src=x onerror='window.ran=1'>",
    "<!--",
    "&amp;",
    '"><b>',
    "\u200b",
    "\n",
    "]]>",
]


def words(seed: int, count: int = 3000) -> list[str]:
    """Invented words, hostile ones among them."""
    r = random.Random(seed)
    made = [
        " " + "".join(r.choice("bcdfghklmnprst") + r.choice("aeiou") for _ in range(r.randint(1, 4)))
        for _ in range(count)
    ]
    return made + HOSTILE


def page_of(cards: int, seed: int, folder: Path) -> tuple[Path, float]:
    """A page of that many cards, and the seconds that drawing it took."""
    from gatelens import views

    p = planted(words(seed), outputs=cards, inputs=200, rows=16_384, length=64, seed=seed)
    began = time.process_time()
    path = views.page(p.circuit, p.acts, tokenizer=p.tokenizer, max_cards=cards).save(folder / f"{cards}-{seed}.html")
    return path, time.process_time() - began


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    """Planted gates over invented text of 3,008 words (eight of them hostile), windows of eleven tokens."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = [page_of(50, seed, folder) for seed in seeds]
        many = [page_of(2000, seed, folder) for seed in seeds[:1]]
        yield Figure(
            "50 cards in one file, MB", statistics.median(p.stat().st_size / 1e6 for p, _ in few), 1.0, "lower"
        )
        yield Figure(
            "2,000 cards in one file, MB", many[0][0].stat().st_size / 1e6, 5.0, "lower", note="first seed only"
        )
        yield Figure(
            "drawing 2,000 cards, CPU seconds",
            many[0][1],
            4.0,
            "lower",
            note="first seed only, contexts searched and rendered",
        )
        if PROGRAM is None:
            yield Figure("2,000 cards: seconds until interactive", None, 0.5, "lower", note=REASON)
            return
        opened = [timing(many[0][0]) for _ in range(3)]
        yield Figure(
            "2,000 cards: seconds until interactive",
            statistics.median(opened),
            0.5,
            "lower",
            note="navigation start to the end of the page's script, headless Chromium, median of three openings",
        )
        seen = [open_page(p) for p, _ in few]
        yield Figure("console messages", float(sum(len(s.console) for s in seen)), 0.0, "lower")
        yield Figure(
            "requests",
            float(sum(len(s.requests) for s in seen)),
            0.0,
            "lower",
            note="http(s) and ws(s) in the network log",
        )
