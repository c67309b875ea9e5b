"""Windows: documents cut into runs of tokens of one length, with what counts and where each token comes from."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from ..errors import DataError, GateLensWarning
from .batches import Batches
from .positions import NOTHING, positions
from .specials import Specials


class Windows:
    """Collects the windows of one part of the data, document by document.

    Args:
        tokenizer: a Hugging Face tokenizer.
        length: tokens in a window.
        packed: several documents in a window, or one, padded on the right.
        specials: its BOS, if sentences begin with one, begins every window and parts packed documents.
        keep_bos: whether BOS and other special tokens count in statistics.
    """

    def __init__(self, tokenizer: Any, length: int, packed: bool, specials: Specials, keep_bos: bool):
        self.tokenizer, self.length, self.packed, self.keep_bos = tokenizer, length, packed, keep_bos
        self.specials, self.bos = specials, specials.bos if specials.begins else None
        bos = self.bos
        self.body = length - (bos is not None)
        self.windows: list[list[int]] = []
        self.sources: list[list[int]] = []
        self._open: list[int] = []  # the packed window that is not full yet
        self._open_sources: list[int] = []

    def full(self, rows: int | None) -> bool:
        return rows is not None and len(self.windows) >= rows

    def add(self, text: str, document: int) -> None:
        """Cut one document into windows."""
        # verbose=False: the tokenizer's complaint about long inputs is about the model, which sees only windows
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if self.packed:
            self._open += ([self.bos] if self.bos is not None and self._open else []) + ids
            self._open_sources += [document] * (len(self._open) - len(self._open_sources))
            whole = len(self._open) // self.body * self.body
            for start in range(0, whole, self.body):
                part = slice(start, start + self.body)
                self._close(self._open[part], self._open_sources[part])
            self._open, self._open_sources = self._open[whole:], self._open_sources[whole:]
        else:
            for start in range(0, len(ids), self.body):
                part = ids[start : start + self.body]
                self._close(part, [document] * len(part))

    def _close(self, ids: list[int], sources: list[int]) -> None:
        head = [] if self.bos is None else [self.bos]
        self.windows.append(head + ids)
        self.sources.append([sources[0]] * len(head) + sources)

    def batches(self, name: str, rows: int | None, batch_size: int) -> Batches:
        """The first `rows` windows as batches.

        Raises:
            DataError: no window at all.
        """
        windows, sources = self.windows[:rows], self.sources[:rows]
        if not windows:
            raise DataError(
                f"{name} gives no window of {self.length} tokens: the documents are empty or too short. "
                "Give more text, or a smaller length"
            )
        if rows is not None and len(windows) < rows:
            message = f"{name} holds {len(windows)} windows, {rows} were asked for: figures rest on fewer rows"
            warnings.warn(message, GateLensWarning, stacklevel=4)
        inputs = torch.tensor([w + [0] * (self.length - len(w)) for w in windows])
        real = torch.tensor([len(w) for w in windows])[:, None] > torch.arange(self.length)
        found = positions(inputs, self.specials, real, self.keep_bos)
        document = torch.tensor([s + [s[-1]] * (self.length - len(s)) for s in sources])
        targets = found.targets
        # where no BOS stands between them, the last word of a document would predict another's first
        targets[:, :-1][document[:, :-1] != document[:, 1:]] = NOTHING
        return Batches(found.inputs, targets, found.keep, document, batch_size, "ce", name, found.mask)
