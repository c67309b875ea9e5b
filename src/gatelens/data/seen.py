"""Which documents a dictionary was trained on, told by hashes of their text, so that tests can leave them out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from .prose import prose

#: one document in so many is kept from training, whoever trains
_APART = 5


def document_hash(text: str) -> str:
    """Eight digits for a document, the same before and after `prose`: for any quotes, dashes and spacing of its words."""
    plain = " ".join(prose(text).split())
    return hashlib.sha256(plain.encode("utf-8", "backslashreplace")).hexdigest()[:8]


def is_kept_apart(text: str) -> bool:
    """Whether a document is among the fifth that no dictionary of ours is trained on."""
    return int(document_hash(text), 16) % _APART == 0


def unseen(documents: Iterable[str], hashes: Collection[str]) -> list[str]:
    """The documents whose hash is none of `hashes`."""
    return [text for text in documents if document_hash(text) not in hashes]
