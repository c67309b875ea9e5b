"""The glossary of a page: every word that it uses, in plain English."""

from __future__ import annotations

from .document import asset


def words() -> list[tuple[str, str]]:
    """(word, what it means), in the order in which a page uses them."""
    found = [line.partition(": ") for line in asset("glossary.txt").splitlines() if line]
    return [(word, meaning) for word, _, meaning in found]
