"""A prompt's reading as a few lines for a terminal."""

from __future__ import annotations

from .firing import firings_of, shown
from .scene import Scene

#: firings that are listed; with what stands around them, a reading takes at most twenty lines
LISTED = 14
#: characters in a line
_WIDE = 140


def lines_of(reading: Scene) -> list[str]:
    """At most twenty lines: the prompt, what the model makes of it, and the firings with the largest effect."""
    prompt = reading.prompt
    every = firings_of(reading)
    head = f"PromptReading of {len(prompt)} {'images' if prompt.images else 'tokens'}, {len(every)} firings"
    lines = [head]
    if not prompt.images:
        lines.append("  " + _cut("|".join(shown(text) for text in prompt.texts)))
        chances = reading.logits[-1].softmax(-1)
        best = chances.topk(min(3, len(chances)))
        choices = ", ".join(
            f"`{shown(reading.text_of(int(i)))}` {float(p):.0%}" for p, i in zip(best.values, best.indices, strict=True)
        )
        lines.append(f"  next: {choices}")
    several = len(reading.layers) > 1
    for firing in every[:LISTED]:
        where = f"[{list(reading.layers).index(firing.layer.segment.name)}] " if several else ""
        lines.append("  " + _cut(where + repr(firing)))
    if len(every) > LISTED:
        by = "value" if every[0].effect is None else "direct effect on the model's first choice"
        lines.append(
            f"  ... {len(every) - LISTED} more, by {by}; .to_dataframe() has all, .at(position, out).why() asks the MLP"
        )
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= _WIDE else text[: _WIDE - 3] + "..."
