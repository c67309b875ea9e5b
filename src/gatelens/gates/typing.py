"""Typing: every output of a connector read as a gate: its best rule, and how much speaks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from torch import Tensor

from ..basis import Basis
from ..basis.features import decode_rows
from ..basis.output import at_output, output_features
from ..codes.csr import blocks, stack_csr, to_csr
from ..connectors import Connector
from ..distributed import shared, team
from ..errors import DataError, SolverError
from ..errors.progress import bar
from ..models import host, there
from ..segments import Segment
from ..store.shards import spans
from .detection import detection, top_tokens
from .gate import Gate
from .grade import Grade
from .levels import Levels
from .lookup import Origin
from .obeyed import obeyed
from .outside import Outside
from .patterns import MOST_LITERALS, Terms
from .reader import Part, Reader, Settings
from .stage import Stage, sparse_rows
from .tables import Columns, halves
from .tried import Tried
from .verification import verify

#: of outputs that are functions of the segment's input
OF_ENCODER = "the rule is about this dictionary's encoder; whether the model writes it is what trials show"
#: fitting rows in which rules are set to be chosen
FITTED = 60_000
#: outputs that are read together, by one of several processes
BLOCK = 8
#: rows that go through the segment at once
_ROWS = 4_096


def type_gates(
    connector: Connector,
    f_in: Tensor,
    f_out: Tensor,
    *,
    held_out: tuple[Tensor, Tensor] | None = None,
    segment: Segment | None = None,
    basis_in: Basis | None = None,
    basis_out: Basis | None = None,
    x: Tensor | None = None,
    x_fit: Tensor | None = None,
    origins: tuple[Any, Any] | None = None,
    levels: str | Sequence[float] = "chosen",
    max_literals: int = 4,
    mcc_bar: float = 0.5,
    min_count: int = 10,
    require_verified: bool = True,
    tried_at_most: int = 256,
    read_at_most: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> list[Gate]:
    """Find the rule that each output obeys best, on one part of the rows, and judge it on the other.

    Args:
        connector: the wires, [n, m]: candidates for every rule, beside all inputs that are on with the output or where a rule is
            wrong.
        f_in, f_out: features over the same rows, [rows, m] and [rows, n], dense or sparse CSR: these decide the rule.
        held_out: the same for rows that nothing was fitted on: they give every figure. Without them the first half of
            the given rows decides and the second half judges.
        segment, basis_in, basis_out, x: the real model between the two hook points, and rows [rows, d_in] at its input
            (those of `held_out` where their number is the same); with all four, rules that hold are also tried by setting
            their literals in the model (`Gate.verified`), and the exact segment on the decoded code is the ceiling.
        x_fit: rows at the segment's input that `f_in` is of: with it the rule of an output that is tried is the best that the model
            obeys on these; without it, the best on natural rows alone.
        origins: where the fitting rows and the held-out rows come from (`Activations`, or anything else with `document`,
            `position` and `token`), for tables of tokens and resamples of documents; needs `held_out`.
        levels: above which a feature counts as on: "chosen" an output and a literal, "median" for outputs, "zero", or
            quantiles of the positive values to choose among.
        max_literals: literals of a rule at most.
        mcc_bar: a rule whose held-out Matthews correlation is lower is weak.
        min_count: rows that a pattern needs before it can speak against a rule.
        require_verified: a rule that the model contradicts under intervention is weak; else it keeps its grade with
            `verified` False.
        tried_at_most: rules that are tried in the model, spread evenly over the outputs whose rule holds.
        read_at_most: outputs that are read, spread evenly; None: all. The gates of the others have no rule, and say why.
        seed: of the random parents and shuffled rows that serve as nulls, of resamples, and of the choice of rows.
        progress: show a bar on standard error.

    Returns:
        One gate an output, in the order of the outputs.

    Raises:
        DataError: rows or widths that do not fit together.
        SolverError: a setting out of range.
        NonFiniteError: NaN or infinity among the features.

    Examples:
        >>> f_in, f_out = (bases[hook].encode(x) for hook, x in acts.items())
        >>> gates = gl.type_gates(circuit.connectors[net.segment.name], f_in, f_out)
        >>> len(gates), gates[2].kind == "or"
        (32, True)
    """
    settings = _settings(
        levels, max_literals, mcc_bar, min_count, min(m for m in (tried_at_most, read_at_most) if m is not None), seed
    )
    fit, judge = _parts(connector, (f_in, f_out), held_out, origins)
    if segment is not None:
        basis_in, basis_out, x = there((basis_in, basis_out, x), segment.device)
    exact = None
    if held_out is not None and segment is not None and basis_in is not None and basis_out is not None:
        exact = _exact(segment, basis_in, basis_out, held_out[0])
    about = "" if basis_out is None or at_output(basis_out).reads_output else OF_ENCODER
    reader = Reader(connector, fit, judge, settings, exact, about)
    count = connector.weight.shape[0]
    sample = set(spread(count, count if read_at_most is None else read_at_most))
    gates = _read(reader, count, sample, progress)
    if segment is None or basis_in is None or basis_out is None or x is None:
        return gates
    known = held_out if held_out is not None and len(x) == len(held_out[0]) else None
    fitting = sparse_rows(f_in), sparse_rows(f_out)
    tried = _tried(gates, tried_at_most)
    if x_fit is not None:
        fitted = Stage.of(segment, basis_in, basis_out, x_fit, _levels(gates), (f_in, f_out)).thinned(FITTED)
        _choose(gates, tried, reader, fitted, fitting, progress)
    stage = Stage.of(segment, basis_in, basis_out, x, _levels(gates), known)
    _try(gates, tried, stage, fitting, require_verified, seed, progress)
    _as_labels(gates, stage, fitting[1], origins if known is not None else None, seed)
    return gates


def _read(reader: Reader, count: int, sample: set[int], progress: bool | None) -> list[Gate]:
    """The gates of all outputs, those in the sample read: blocks of them by each process."""
    blocks = spans(count, BLOCK)
    _ = reader.r2  # by all processes together, before each goes its way
    with bar(room="rules", total=len(team().owned(len(blocks))), progress=progress, unit="block") as shown:

        def block(i: int) -> list[Gate]:
            found = [reader.read(out) if out in sample else reader.unread(out) for out in blocks[i]]
            shown.update()
            return found

        return [gate for gates in shared(len(blocks), block) for gate in gates]


def _levels(gates: Sequence[Gate]) -> Float[np.ndarray, " n"]:
    """Above which each output is on."""
    return np.array([g.level for g in gates])


def _tried(gates: list[Gate], most: int) -> list[int]:
    """Outputs whose rule holds, spread evenly where there are more than so many."""
    holds = [gate.out for gate in gates if gate.grade == Grade.HOLDS and gate.rule is not None]
    return [holds[i] for i in spread(len(holds), most)]


def _choose(
    gates: list[Gate],
    outs: list[int],
    reader: Reader,
    fitted: Stage,
    fitting: tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix],
    progress: bool | None,
) -> None:
    """Where the model does not obey the best rule on natural rows but obeys another that holds too, that one is the gate's.

    First above the output's own level; where nothing is obeyed there, above the next lower one, and so on: what brings an output
    from silence to its highest values needs more than any rule names.
    """
    settings, outside = reader.settings, Outside.of(*fitting, fitted.levels)
    ladder = {out: [x for x in reversed(reader.levels(out)) if x <= gates[out].level] for out in outs}
    while any(ladder.values()):
        level = {out: levels.pop(0) for out, levels in ladder.items() if levels}
        suggested = {out: found for out in level if (found := reader.suggested(out, level[out])) is not None}
        for out in suggested:
            fitted.levels[out] = outside.levels[out] = level[out]
        chosen = obeyed(fitted, suggested, outside, settings.terms, settings.mcc_bar, settings.seed, progress)
        for out, ranked in chosen.items():
            if (ranked.rule, level[out]) == (gates[out].rule, gates[out].level):
                ladder[out] = []
                continue
            other = reader.judged(out, level[out], ranked, suggested[out])
            if other.grade == Grade.HOLDS:
                gates[out], ladder[out] = _instead(gates[out], other), []


def _instead(first: Gate, other: Gate) -> Gate:
    """The gate whose rule the model obeys, and beside it what predicts better."""
    where = "" if other.level == first.level else f" of its values above {first.level:.3g}"
    said = f"the model does not obey {first.rule}, which predicts it better (MCC {first.mcc:.2f}{where})"
    return replace(other, note="; ".join(part for part in (other.note, said) if part))


def _try(
    gates: list[Gate],
    outs: list[int],
    stage: Stage,
    fitting: tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix],
    require: bool,
    seed: int,
    progress: bool | None,
) -> None:
    """Try rules in the model, and write down what came of it."""
    rules = {out: rule for out in outs if (rule := gates[out].rule) is not None}
    if not rules:
        return
    for out, found in verify(stage, rules, fitting, seed, progress).items():
        denied = found.verified is False and require
        grade = Grade.VERIFIED if found.verified else Grade.WEAK if denied else Grade.HOLDS
        gates[out] = replace(gates[out], verified=found.verified, grade=grade, why=found.why, tried=Tried.of(found))


def spread(count: int, most: int) -> list[int]:
    """At most so many of the first numbers, spread evenly."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


def _as_labels(
    gates: list[Gate], stage: Stage, fitted: scipy.sparse.csr_matrix, origins: tuple[Any, Any] | None, seed: int
) -> None:
    """Score the rules that were tried as labels of their outputs, beside the outputs' top tokens where there is text."""
    texts = [np.asarray(o.token) for o in origins or () if np.asarray(o.position).any()]
    columns = fitted.tocsc()
    for out, gate in enumerate(gates):
        if gate.tried is None or gate.rule is None:
            continue
        span, at = (slice(f.indptr[out], f.indptr[out + 1]) for f in (columns, stage.output_columns))
        on = columns.indices[span][columns.data[span] > gate.level]
        tokens = (texts[1], top_tokens(texts[0], on)) if len(texts) == 2 else None
        said = gate.rule.open_rows([np.flatnonzero(stage.on(literal)) for literal in gate.rule.literals])
        fired = stage.output_columns.indices[at], stage.output_columns.data[at]
        found = detection(said, fired, gate.level, len(stage.x), tokens, seed)
        if found is not None:
            tried = replace(gate.tried, detection=found.rule, detection_tokens=found.tokens)
            gates[out] = replace(gate, tried=tried)


def _exact(segment: Segment, basis_in: Basis, basis_out: Basis, f_in: Tensor) -> Columns:
    """The output features that the exact segment gives on the decoded input code: what the code can tell at all."""
    parts = []
    with torch.no_grad():
        for part in blocks(f_in, _ROWS):
            x = decode_rows(basis_in, part.to(segment.device))
            f = output_features(basis_out, x, segment.forward(x))
            parts.append(host(f if f.layout == torch.sparse_csr else to_csr(f)))
    return Columns.of(stack_csr(parts), "the exact segment's features")


def _settings(
    levels: str | Sequence[float], max_literals: int, mcc_bar: float, min_count: int, most: int, seed: int
) -> Settings:
    if not 1 <= max_literals <= MOST_LITERALS // 2:
        raise SolverError(
            f"max_literals must be between 1 and {MOST_LITERALS // 2}: nobody reads a longer rule; got {max_literals}"
        )
    if not -1 <= mcc_bar <= 1 or min_count < 1 or most < 1:
        raise SolverError(
            "typing needs mcc_bar in [-1, 1], min_count, tried_at_most and read_at_most of 1 or more; got "
            f"{mcc_bar}, {min_count} and {most}"
        )
    return Settings(Levels.of(levels), Terms(max_literals), mcc_bar, min_count, seed)


def _parts(
    connector: Connector,
    fitting: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor] | None,
    origins: tuple[Any, Any] | None,
) -> tuple[Part, Part]:
    """The rows that decide and those that judge."""
    fit = _columns(connector, *fitting, "")
    if held_out is None:
        if origins is not None:
            raise DataError("origins are of the fitting and of the held-out rows: give held_out too, or no origins")
        (a, c), (b, d) = halves(fit[0]), halves(fit[1])
        return Part(a, b), Part(c, d)
    judge = _columns(connector, *held_out, "held-out ")
    if origins is None:
        return Part(*fit), Part(*judge)
    where = [Origin.of(o, f[0].rows, w) for o, f, w in zip(origins, (fit, judge), ("", "held-out "), strict=True)]
    return Part(*fit, where[0]), Part(*judge, where[1])


def _columns(connector: Connector, f_in: Tensor, f_out: Tensor, which: str) -> tuple[Columns, Columns]:
    n, m = connector.weight.shape
    if f_in.ndim != 2 or f_out.ndim != 2:
        raise DataError(
            f"{which}f_in and f_out must be features of rows, [rows, {m}] and [rows, {n}]; got shapes {list(f_in.shape)} and "
            f"{list(f_out.shape)}"
        )
    if f_in.shape[1] != m or f_out.shape[1] != n:
        raise DataError(
            f"the connector maps {m} features to {n}; the {which}rows have {f_in.shape[1]} and {f_out.shape[1]}. "
            "Give the features of the hook points that it was fitted between"
        )
    if f_in.shape[0] != f_out.shape[0]:
        raise DataError(
            f"{which}f_in has {f_in.shape[0]} rows and f_out {f_out.shape[0]}; give the features of the same rows"
        )
    return Columns.of(f_in, f"{which}f_in"), Columns.of(f_out, f"{which}f_out")
