"""Kinds of edits that circuits and dictionaries are judged by; none is of the kind that `Counterfactual` fits on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..codes.rows import Codes
from .counterfactual import Edit, Library, uniform

EditRows = Callable[[Codes, Library, torch.Generator], Edit]

#: probability with which `subset` drops a feature, and `patch` exchanges one
DROP, EXCHANGE = 0.4, 0.25
#: features drawn for a row until one is found that is off, or without which an output closes
_TRIES = 16


def removal(codes: Codes, library: Library, generator: torch.Generator) -> Edit:
    """One active feature of each row taken away, drawn evenly."""
    return Edit.of(codes, _one_each(codes, generator))


def subset(codes: Codes, library: Library, generator: torch.Generator) -> Edit:
    """Each active feature taken away with probability `DROP`."""
    return Edit.of(codes, uniform(len(codes.col), generator, codes) < DROP)


def addition(codes: Codes, library: Library, generator: torch.Generator) -> Edit:
    """One inactive feature of each row put in at its typical value; none where nearly all are on."""
    if not library.chances.any():
        return Edit.of(codes, _none(codes))
    drawn = torch.multinomial(library.chances.cpu(), len(codes) * _TRIES, replacement=True, generator=generator)
    drawn = drawn.view(len(codes), _TRIES).to(codes.col.device)
    row = torch.arange(len(codes), device=drawn.device)
    off = ~torch.isin(row[:, None] * codes.width + drawn, codes.row * codes.width + codes.col)
    col = drawn.gather(1, off.long().argmax(1, keepdim=True))[:, 0]
    row, col = row[off.any(1)], col[off.any(1)]
    added = Codes.from_entries(row, col, library.typical[col].to(codes.value), len(codes), codes.width)
    return Edit.of(codes, _none(codes), added)


def patch(codes: Codes, library: Library, generator: torch.Generator) -> Edit:
    """A quarter of the active features exchanged for a quarter of those of another natural row, with their real values."""
    dropped = uniform(len(codes.col), generator, codes) < EXCHANGE
    other = torch.randint(len(library.source), (len(codes),), generator=generator).to(codes.col.device)
    donor = library.source.rows(other)
    taken = uniform(len(donor.col), generator, codes) < EXCHANGE
    fresh = ~torch.isin(donor.row * codes.width + donor.col, codes.row * codes.width + codes.col)
    return Edit.of(codes, dropped, donor.only(taken & fresh))


def decisive(opens: Callable[[Float[Tensor, "rows m"]], Bool[Tensor, "rows n"]]) -> EditRows:
    """One active feature of each row taken away, drawn among those without which some output closes; nothing where none is found.

    Read backwards this restores a feature in its own row, where a rule is closed only for its lack.

    Args:
        opens: which outputs are on, from the features.
    """

    def edit(codes: Codes, library: Library, generator: torch.Generator) -> Edit:
        with torch.no_grad():
            was = opens(codes.dense())
            dropped, left = _none(codes), torch.ones(len(codes), dtype=torch.bool, device=codes.col.device)
            for _ in range(_TRIES):
                drawn = _one_each(codes, generator) & left[codes.row]
                closed = (was & ~opens(codes.only(~drawn).dense())).any(1)
                dropped |= drawn & closed[codes.row]
                left &= ~closed
        return Edit.of(codes, dropped)

    return edit


#: by the names that reports have for them
KINDS: dict[str, EditRows] = {"removals": removal, "subsets": subset, "additions": addition, "patches": patch}


def _one_each(codes: Codes, generator: torch.Generator) -> Bool[Tensor, " entries"]:
    """One entry of each row that has any, drawn evenly."""
    counts = codes.crow.diff()
    place = codes.crow[:-1] + (uniform(len(codes), generator, codes) * counts).long()
    drawn = _none(codes)
    drawn[place[counts > 0]] = True
    return drawn


def _none(codes: Codes) -> Bool[Tensor, " entries"]:
    return torch.zeros(len(codes.col), dtype=torch.bool, device=codes.col.device)
