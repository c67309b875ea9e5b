"""Trying a dictionary on a few rows: what it decodes and encodes against one another and against the weights that it shows."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import BasisError

#: relative difference, in the Frobenius norm, up to which two float32 computations count as the same
TOLERANCE = 1e-3
#: the same in half precision, which has three digits at most
_COARSE = 3e-2
_ROWS = 8  # tried
#: a row is stretched by these to see which of its features are at their thresholds
_NUDGES = (1 - 1e-4, 1 + 1e-4)
_AT_ONCE = 1024  # directions decoded


class AsComputed:
    """A dictionary by what it computes: directions from its `decode`; `W_enc` is left out where `encode` is not it.

    Attributes:
        source: what was given.
        W_dec, b_dec: decode(e_i) - decode(0) of every feature, and decode(0).
        reads: the precision of the rows that its `encode` takes; ours are float32.
    """

    def __init__(self, source: Any, W_dec: Float[Tensor, "f d"], b_dec: Float[Tensor, " d"], reads: torch.dtype):
        self.source, self.W_dec, self.b_dec, self.reads = source, W_dec.float(), b_dec.float(), reads
        self.label = str(getattr(source, "label", None) or type(source).__name__)
        self.cfg = SimpleNamespace(
            d_in=W_dec.shape[1], d_sae=W_dec.shape[0], metadata=getattr(getattr(source, "cfg", None), "metadata", None)
        )

    def encode(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]:
        return self.source.encode(x.to(self.reads)).to_dense().to(torch.float32)

    def decode(self, f: Float[Tensor, "rows f"]) -> Float[Tensor, "rows d"]:
        return f @ self.W_dec + self.b_dec

    def __repr__(self) -> str:
        return f"AsComputed({self.label}: {self.cfg.d_in} -> {self.cfg.d_sae})"


def tried(basis: Any, at: str, width: int | None, rows: Tensor | None = None) -> Any:
    """encode and decode on a few rows, against one another and against the weights that the object shows.

    Args:
        rows: the data's own, where they are at hand: what saturates does so at their scale.
    """
    d = _width(basis, width)
    if d is None:
        return basis  # nothing says how wide its rows are: it is tried where it is put to use
    if width is not None and d != width:
        raise BasisError(
            f"the basis{at} takes vectors of width {d}, the hook point has width {width}. "
            "Choose a basis that was made for this hook point of this model"
        )
    x = rows_for(basis, d)
    with torch.no_grad(), _said(f"while the basis{at} was tried on {_ROWS} rows of width {d}"):
        made = _tried_on(basis, at, _on(basis.encode, x))
        real = _of_data(rows, x)
        if real is not None:
            there = _tried_on(basis, f"{at}, on the data's own rows,", real)
            made = there if made is basis else made
        return made


def _tried_on(basis: Any, at: str, x: Tensor) -> Any:
    f = basis.encode(x)
    check_features(f, alone(basis.encode, x, f), at, basis)
    y = basis.decode(f)
    if not isinstance(y, Tensor) or y.shape != x.shape:
        raise BasisError(
            f"the basis{at} decodes {_shape(f)} to {_shape(y)}; expected {list(x.shape)}, as it was encoded"
        )
    _check_stateless(basis, at, x, f)
    return _with_true_weights(basis, at, x, f)


def _of_data(rows: Tensor | None, like: Tensor) -> Tensor | None:
    """The longest rows and some of the others; None where there are none of this width."""
    if rows is None or rows.ndim != 2 or rows.shape[1] != like.shape[1] or not len(rows):
        return None
    size = rows.float().norm(dim=1).nan_to_num(0, 0, 0)
    longest = size.argsort(descending=True)[torch.arange(_ROWS // 2) % len(rows)]
    spread = torch.arange(_ROWS - _ROWS // 2) * len(rows) // (_ROWS - _ROWS // 2)
    chosen = rows[torch.cat([longest, spread.to(longest)])].to(like)
    return chosen if bool(torch.isfinite(chosen).all()) else None


def tried_from_input(basis: Any, at: str, d_in: int, d_out: int) -> Any:
    """The same of an object of a user's that computes its features from a segment's input: `features_from` and `decode`.

    Raises:
        BasisError: rows that are not treated one by one, a decode that is not affine or not by the `W_dec` that it shows.
    """
    with torch.no_grad(), _said(f"while the basis{at} was tried on {_ROWS} rows of width {d_in}"):
        x = _on(basis.features_from, rows_for(basis, d_in))
        f = basis.features_from(x)
        check_features(f, [basis.features_from(row) for row in x.split(1)], at, basis)
        y = basis.decode(f)
        if not isinstance(y, Tensor) or y.shape != (_ROWS, d_out):
            raise BasisError(f"the basis{at} decodes {_shape(f)} to {_shape(y)}; expected {[_ROWS, d_out]}")
        _, moved, v = _moved(basis, at, f.to_dense())
        decoder = _matrix(basis, "W_dec")
        if decoder is not None and not off_by(v @ decoder.to(v), moved) <= tolerance(moved):
            raise BasisError(
                f"the basis{at} ({type(basis).__name__}) shows a W_dec by which it does not decode. Leave W_dec out, or make "
                "decode(f) what it says, f @ W_dec and a constant"
            )
    return basis


def _on(encode: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """The rows, made so long that some feature is on: of what never is, nothing can be said."""
    for longer in (1, 10, 100, 1000):
        f = encode(longer * x)
        if not isinstance(f, Tensor) or bool((f.to_dense() != 0).any()):
            return longer * x
    return x


def alone(encode: Callable[[Tensor], Any], x: Tensor, f: Any) -> list[Any]:
    """Each row encoded by itself.

    A feature that is at its threshold to the last digits may be on in one and off in the other, which is arithmetic and no fault:
    where a step of a ten-thousandth switches it, it is taken as in `f`, what all rows give together.
    """
    rows = [encode(row) for row in x.split(1)]
    if (
        not all(isinstance(r, Tensor) and r.shape[1:] == f.shape[1:] for r in (f, *rows))
        or f.ndim != 2
        or len(f) != len(x)
    ):
        return rows  # what is refused in `check_features`
    single, together = torch.cat([row.to_dense() for row in rows]), f.to_dense()
    if not bool(((single != 0) != (together != 0)).any()):
        return rows
    below, above = (torch.cat([encode(row * s).to_dense() for row in x.split(1)]) != 0 for s in _NUDGES)
    return list(torch.where((below != above) & ((single != 0) != (together != 0)), together, single).split(1))


def check_features(f: Any, alone: list[Any], at: str, basis: Any) -> None:
    """A row of finite features for each row, the same whether it comes alone or among others."""
    if not isinstance(f, Tensor) or f.ndim != 2 or len(f) != _ROWS:
        raise BasisError(
            f"the basis{at} encodes [{_ROWS}, d] to {_shape(f)}; expected [{_ROWS}, features], a row for each row"
        )
    if not f.shape[1]:
        raise BasisError(
            f"the basis{at} ({type(basis).__name__}) has no features: it encodes [{_ROWS}, d] to {_shape(f)}"
        )
    if f.dtype == torch.bool or f.is_complex():
        raise BasisError(f"the basis{at} encodes to {f.dtype}; expected real numbers. Give encode(x).float()")
    f = f.to_dense()
    if not torch.isfinite(f).all():
        raise BasisError(f"the basis{at} encodes finite rows to NaN or infinity. Check its weights")
    off = off_by(torch.cat([row.to_dense() for row in alone]), f)
    if not off <= tolerance(f):
        raise BasisError(
            f"the basis{at} ({type(basis).__name__}) encodes a row otherwise when it comes alone than among {_ROWS}, by a "
            f"relative {off:.2g}: it decides over the whole batch, a basis encodes each row by itself. "
            "Give its inference form (sae-lens: sae.save_inference_model(FOLDER), then PretrainedSAE(FOLDER))"
        )


def _check_stateless(basis: Any, at: str, x: Tensor, f: Tensor) -> None:
    """What it decodes hangs on the features alone, not on the rows that were encoded last."""
    basis.encode(x)
    first = basis.decode(f)
    basis.encode(3 * x.flip(0))
    off = off_by(basis.decode(f), first)
    if not off <= tolerance(first):
        raise BasisError(
            f"the basis{at} ({type(basis).__name__}) decodes the same features otherwise after other rows were encoded, by a relative "
            f"{off:.2g}: it keeps something of the last encode (a norm, a mean). Features that a connector predicts come without it; "
            "let it travel as one more feature, or fold it into the weights"
        )
    off = off_by(torch.cat([basis.decode(row) for row in f.to_dense().split(1)]), first)
    if not off <= tolerance(first):
        raise BasisError(
            f"the basis{at} ({type(basis).__name__}) decodes a row otherwise when it comes alone than among {_ROWS}, by a "
            f"relative {off:.2g}: a basis decodes each row by itself. Give one without statistics of the batch"
        )


def _with_true_weights(basis: Any, at: str, x: Tensor, f: Tensor) -> Any:
    """The basis, or `AsComputed` where it shows weights by which it does not compute, or features that are not dense float32."""
    plain = f.layout == torch.strided
    f = f.to_dense()
    n = f.shape[1]
    start, moved, v = _moved(basis, at, f)
    matrix, close = _matrix(basis, "matrix"), tolerance(moved)
    decoder, encoder = _matrix(basis, "W_dec"), _matrix(basis, "W_enc")
    decoder = matrix if decoder is None else decoder
    encoder = matrix.T if encoder is None and matrix is not None else encoder
    decodes = decoder is None or (decoder.shape == (n, x.shape[1]) and off_by(v @ decoder.to(v), moved) <= close)
    encodes = encoder is None or (encoder.shape == (x.shape[1], n) and _reads_off_by(basis, encoder, x, f) <= close)
    counted = getattr(getattr(basis, "cfg", None), "d_sae", n) == n
    if decodes and encodes and counted and plain and f.dtype == start.dtype == x.dtype == torch.float32:
        return basis
    return AsComputed(
        basis, _directions(basis.decode, n, start, {"dtype": f.dtype, "device": f.device}), start[0], x.dtype
    )


def _moved(basis: Any, at: str, f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What it decodes of nothing, and how far some drawn features v move that: (decode(0), decode(v) - decode(0), v).

    Raises:
        BasisError: a decode that is not affine.
    """
    draw = torch.Generator().manual_seed(1)
    v = torch.rand(2, f.shape[1], generator=draw).to(f)
    start = basis.decode(f.new_zeros(1, f.shape[1]))
    moved = basis.decode(v) - start
    off = max(_bent_by(basis, start, v, draw), _bent_by(basis, start, f, draw))
    if not off <= tolerance(moved):
        raise BasisError(
            f"the basis{at} ({type(basis).__name__}) decodes by a function that is not affine: two features together are off the "
            f"sum of each by a relative {off:.2g}. Directions of features do not exist then; give a basis with an affine decode"
        )
    return start, moved, v


def _bent_by(basis: Any, start: Tensor, f: Tensor, draw: torch.Generator) -> float:
    """How far decode is from affine at some features: half of them and the others apart, and all of them made smaller."""
    some = (torch.rand(f.shape, generator=draw) < 0.5).to(f)
    whole = basis.decode(f) - start
    apart = (basis.decode(some * f) - start) + (basis.decode((1 - some) * f) - start)
    return max(off_by(apart, whole), off_by(4 * (basis.decode(f / 4) - start), whole))


def _reads_off_by(basis: Any, encoder: Tensor, x: Tensor, f: Tensor) -> float:
    """How far a step of x moves the features that are on before and behind from where `W_enc` says, relative."""
    step = 1e-2 * x.flip(0)
    moved = basis.encode(x + step).to_dense()
    on = (f != 0) & (moved != 0)
    said = (step @ encoder.to(step)) * on
    return off_by((moved - f) * on, said) if bool(on.any()) else 0.0


def _directions(
    decode: Callable[[Tensor], Tensor], n: int, start: Tensor, like: dict[str, Any]
) -> Float[Tensor, "f d"]:
    parts = []
    for places in torch.arange(n).split(_AT_ONCE):
        unit = torch.zeros(len(places), n, **like)
        unit[torch.arange(len(places)), places] = 1
        parts.append(decode(unit) - start)
    return torch.cat(parts)


def rows_for(basis: Any, d: int, count: int = _ROWS) -> Float[Tensor, "rows d"]:
    """Rows on which features are on: large ones, and ones along what the encoder reads where that is known."""
    like = next((m for m in (_matrix(basis, name) for name in ("W_dec", "W_enc", "matrix")) if m is not None), None)
    if like is None:
        like = next(iter(basis.parameters()), None) if isinstance(basis, torch.nn.Module) else None
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(count, d, generator=draw) * torch.linspace(0.3, 3, count)[:, None]
    if like is None:
        return x
    encoder, threshold = _matrix(basis, "W_enc"), _matrix(basis, "threshold")
    x = x.to(like)
    if encoder is not None and encoder.ndim == 2 and encoder.shape[0] == d and encoder.shape[1]:
        chosen = encoder[:, torch.arange(count) * encoder.shape[1] // count].T.to(x)
        height = 10 + (0.0 if threshold is None else float(threshold.max()))
        x = x + height * chosen / chosen.square().sum(1, keepdim=True).clamp_min(1e-12)
    return x


def _width(basis: Any, width: int | None) -> int | None:
    """How wide the basis says its rows are; else the hook point's width."""
    config, matrix = getattr(basis, "cfg", None), _matrix(basis, "matrix")
    said = getattr(config, "d_in", None)
    said = matrix.shape[1] if said is None and matrix is not None else said
    return int(said) if said else width


def _matrix(basis: Any, name: str) -> Tensor | None:
    value = getattr(basis, name, None)
    return value.detach() if isinstance(value, Tensor) else None


def tolerance(value: Tensor) -> float:
    """Up to which relative difference two values of this precision count as the same."""
    return TOLERANCE if value.dtype in (torch.float32, torch.float64) else _COARSE


def off_by(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted|; 0 where both are nothing."""
    error, size = (found - wanted).double().norm(), wanted.double().norm()
    return 0.0 if not error > 0 else float(error / size.clamp_min(1e-30))


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


class _said:
    """An exception of a user's own code passes, with a note on where it happened."""

    def __init__(self, note: str):
        self.note = note

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and not isinstance(error, BasisError):
            error.add_note(self.note)
