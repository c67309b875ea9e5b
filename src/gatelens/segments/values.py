"""Values: what passes through a hook point as rows, one a position; refused where it is anything else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.told import setting
from ..errors import DataError, SegmentError

#: what attention holds for pairs of positions
_PAIRS = ("hook_pattern", "hook_attn_scores", "hook_attention_weights")

#: within a block of a causal model, what is read before attention mixes positions
_BEFORE_ATTENTION = (
    r"hook_resid_pre|hook_in|hook_attn_in|hook_[qkv]_input|ln1\..*|attn\.(hook_in|hook_(rot_)?[qkv]|[qkv]\..*)"
)
#: hook points that fire only when transformer-lens is told to compute them
_SWITCHES = {
    "hook_result": "set_use_attn_result",
    "hook_attn_in": "set_use_attn_in",
    "hook_mlp_in": "set_use_hook_mlp_in",
    "hook_q_input": "set_use_split_qkv_input",
    "hook_k_input": "set_use_split_qkv_input",
    "hook_v_input": "set_use_split_qkv_input",
}


def switched_by(name: str) -> str:
    """A clause on what makes a hook point fire, where something does."""
    switch = _SWITCHES.get(name.rsplit(".", 1)[-1])
    return f" until model.{switch}(True) is called" if switch else ""


def refuse_pairs(name: str) -> None:
    """Refuse the hook points of attention that hold a number for each pair of positions.

    Raises:
        SegmentError: with what to read in their place.
    """
    if name.rsplit(".", 1)[-1] in _PAIRS:
        raise SegmentError(
            f"{name} holds attention, [examples, heads, T, T]: a function of several positions, which has no row for each. "
            "Read what attention computes for a position, hook_z or hook_attn_out, in its place"
        )


def check_rowwise(model: Any, points: Iterable[Any]) -> None:
    """Refuse what is no function of one position: attention's patterns, and segments with attention between their ends.

    Raises:
        SegmentError: by name, before any forward pass.
    """
    for point in points:
        ends = [point] if isinstance(point, str) else [point.hook_in, point.hook_out]
        for name in ends:
            refuse_pairs(name)
        if len(ends) == 2:
            _refuse_backwards(*ends)
        if len(ends) == 2 and setting(model, "attention_dir", "causal") == "causal":
            _refuse_across(*ends, parallel=bool(setting(model, "parallel_attn_mlp")))


def _refuse_backwards(hook_in: str, hook_out: str) -> None:
    begin, end = _place(hook_in), _place(hook_out)
    if begin is not None and end is not None and end < begin:
        raise SegmentError(
            f"segment {hook_in} -> {hook_out}: its end lies before its start, block {end // 2} before block {begin // 2} or attention; "
            "a segment goes the way data flows. Exchange the ends"
        )


def _refuse_across(hook_in: str, hook_out: str, parallel: bool) -> None:
    begin, end = _place(hook_in), _place(hook_out)
    beside = parallel and re.search(
        r"\.(hook_mlp_out|mlp\..*|ln2\..*)$", hook_out
    )  # the MLP does not read attention there
    if begin is None or end is None or end <= begin or (beside and end == begin + 1):
        return
    raise SegmentError(
        f"segment {hook_in} -> {hook_out}: the attention of block {(begin + 1) // 2} lies between its ends, a function of "
        "several positions; a segment acts on each row by itself. Begin behind it (hook_resid_mid, hook_z) or end before it"
    )


def _place(name: str) -> int | None:
    """How many halves of blocks lie before a hook point: attention is the step from an even one to an odd one."""
    block = re.match(r"blocks\.(\d+)\.(.+)", name)
    if block is None:
        return None
    return 2 * int(block[1]) + (re.fullmatch(_BEFORE_ATTENTION, block[2]) is None)


def rows_of(value: Any, shape: Sequence[int], name: str, heads: bool = False) -> Float[Tensor, "rows width"]:
    """A hook point's value as one row a position.

    Args:
        shape: of the batch: [examples] or [examples, T]. The value's leading dimensions must be these.
        heads: flatten a dimension of heads into the width, as `Segment(..., reshape="heads")` asks.

    Raises:
        SegmentError: another shape, with how to reshape it.
    """
    shape = tuple(shape)
    if not isinstance(value, Tensor):
        raise SegmentError(f"{name} passes a {type(value).__name__}; expected one tensor, a row for each position")
    found, more = tuple(value.shape), value.ndim - len(shape)
    if found[: len(shape)] == shape and (more == 1 or (more == 2 and heads)):
        return value.reshape(-1, found[-1] if more == 1 else found[-1] * found[-2])
    raise SegmentError(f"{name} has shape {list(found)}; expected [{_spelled(shape)}, width]. {_advice(found, shape)}")


def _spelled(shape: tuple[int, ...]) -> str:
    return ", ".join(f"{size} {what}" for size, what in zip(shape, ("examples", "positions"), strict=False))


def _advice(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if found[: len(shape)] == shape and len(found) == len(shape) + 2 and len(shape) == 2:
        return (
            f'It has {found[-2]} heads of {found[-1]}: collect a Segment(..., reshape="heads"), which takes them side by '
            f"side as {found[-2] * found[-1]} numbers a position"
        )
    if found[: len(shape)] == shape:
        return "Put a HookPoint behind a flatten(1) (for images) or a view in the model, and give its name"
    if sorted(found[: len(shape)]) == sorted(shape) or shape == found[1 : len(shape) + 1]:
        return (
            "Its dimensions stand in another order: put a HookPoint behind a transpose in the model, and give its name"
        )
    return "It is no function of single positions (attention, experts, or pooling): choose another hook point"


def rows_for(segment: Any, x: Tensor) -> Float[Tensor, "rows d_in"]:
    """Rows at a segment's input, on its device and in the precision of its weights.

    Raises:
        DataError: no rows, or no dense floating-point numbers.
        SegmentError: another width.
    """
    if x.ndim == 2 and x.shape[1] != segment.d_in:
        raise SegmentError(
            f"segment {segment.name}: got rows of width {x.shape[1]} where {segment.d_in} was expected. "
            f"Give the activations at {segment.hook_in}"
        )
    fits = x.ndim == 2 and x.is_floating_point() and x.layout == torch.strided
    if not fits or not len(x):
        raise DataError(
            f"expected floating-point rows at {segment.hook_in}, [rows, {segment.d_in}], at least one; got {x.dtype} of shape "
            f"{list(x.shape)}. Give collect(model, batches, segment)[{segment.hook_in!r}]"
        )
    return x.to(segment.device) if segment.mlp is None else x.to(segment.mlp.W_in)


def check_order(run: Any, names: Sequence[str], inputs: Tensor, shape: Sequence[int]) -> None:
    """Where a batch has as many examples as positions, see on one example that they do not stand in the other order.

    Args:
        run: (inputs of one example) -> mapping name -> value.
    """
    if len(shape) < 2 or shape[0] != shape[1] or shape[0] < 2:
        return
    with torch.no_grad():
        values = run(inputs[:1])
    for name in names:
        if name in values and isinstance(values[name], Tensor) and tuple(values[name].shape[:2]) != (1, shape[1]):
            rows_of(values[name], (1, shape[1]), name, True)
