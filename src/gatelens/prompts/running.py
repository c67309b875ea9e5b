"""Runs of one prompt: as it is, and with values changed at hook points; many edits are one batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ConfigError
from ..models import block_of, device_of, entering_hook, run_cached, run_hooked, starts_at
from .prompt import Prompt

#: token positions in one forward pass
_POSITIONS = 2_048


@dataclass(frozen=True)
class Change:
    """What one run of a batch does at a hook point.

    Attributes:
        run: which of the batch. hook: where. positions: at which positions of the prompt.
        vectors: a vector a position, added to what is there, or with `replace` put in its place.
    """

    run: int
    hook: str
    positions: Int[Tensor, " k"]
    vectors: Float[Tensor, "k d"]
    replace: bool = False


@dataclass(frozen=True)
class Ran:
    """What came of a batch of runs: logits [runs, positions, vocabulary], and values [runs, positions, d] where asked for."""

    logits: Float[Tensor, "runs positions vocabulary"]
    values: dict[str, Float[Tensor, "runs positions d"]]


class Runner:
    """A model and a prompt; nothing stays on the model between runs.

    Where the model can start at a block, runs whose changes lie there or later start from what entered it untouched; that this
    gives the same logits is proved once.
    """

    def __init__(self, model: Any, prompt: Prompt):
        self.model, self.prompt = model, prompt
        self.clean: dict[str, Tensor] = {}  # hook point -> [positions, d], of a run without changes
        self.logits: Tensor | None = None
        self._starts: dict[int, bool] = {}

    def run(
        self, changes: Sequence[Change] = (), runs: int = 1, watch: Iterable[str] = (), frozen: bool = False
    ) -> Ran:
        """The prompt `runs` times, each with its changes.

        Args:
            watch: hook points whose values are kept.
            frozen: later blocks keep the attention patterns of the untouched prompt.

        Raises:
            ConfigError: `frozen` where there is no attention to hold.
        """
        watch = list(dict.fromkeys(watch))
        if not changes and runs == 1:
            return self._untouched(watch)
        at_once = max(1, _POSITIONS // len(self.prompt))
        parts = [self._part(changes, range(n, min(n + at_once, runs)), watch, frozen) for n in range(0, runs, at_once)]
        values = {hook: torch.cat([p.values[hook] for p in parts]) for hook in watch}
        return Ran(torch.cat([p.logits for p in parts]), values)

    def _untouched(self, watch: list[str]) -> Ran:
        kept: dict[str, Tensor] = {}
        hooks = [(hook, self._keeping(hook, kept, 1)) for hook in watch]
        with torch.no_grad():
            logits = self._rows(run_hooked(self.model, self._inputs(1), None, hooks), 1)
        self.clean |= {hook: value[0] for hook, value in kept.items()}
        self.logits = logits
        return Ran(logits, kept)

    def _inputs(self, runs: int) -> Tensor:
        return self.prompt.inputs.to(device_of(self.model)).repeat(runs, 1)

    def _part(self, changes: Sequence[Change], runs: range, watch: list[str], frozen: bool) -> Ran:
        mine = [c for c in changes if c.run in runs]
        first = min((_layer(c.hook) for c in changes), default=-1)
        begin = self._begin(first, watch)
        kept = {h: self.clean[h].expand(len(runs), -1, -1) for h in watch if _layer(h) < begin}
        hooks = [(hook, self._changing([c for c in mine if c.hook == hook], runs)) for hook in _hooks(mine)]
        hooks += self._holding(mine, len(runs)) if frozen else []
        hooks += [(hook, self._keeping(hook, kept, len(runs))) for hook in watch if hook not in kept]
        return Ran(self._rows(self._forward(hooks, len(runs), begin), len(runs)), kept)

    def _forward(self, hooks: list[Any], runs: int, begin: int = -1) -> Tensor:
        """The logits of so many runs, from a block on where `begin` is one."""
        with torch.no_grad():
            if begin < 0:
                return run_hooked(self.model, self._inputs(runs), None, hooks)
            entering = self.clean[entering_hook(begin)].to(device_of(self.model))
            inputs = entering.expand(runs, -1, -1).clone()
            return self.model.run_with_hooks(inputs, fwd_hooks=hooks, start_at_layer=begin)

    def _begin(self, block: int, watch: list[str]) -> int:
        """The block to start from: the first that is changed, where all before it is known and a start there is proved; else -1."""
        known = [entering_hook(block), *(hook for hook in watch if _layer(hook) < block)]
        if block <= 0 or any(hook not in self.clean for hook in known):
            return -1
        if block not in self._starts:
            self._starts[block] = self._proved(block)
        return block if self._starts[block] else -1

    def _proved(self, block: int) -> bool:
        """Whether a run from a block on gives the logits of a whole one."""
        whole = self._untouched([]).logits if self.logits is None else self.logits
        return starts_at(self.model, block, self.clean[entering_hook(block)].to(device_of(self.model))[None], whole)

    def _rows(self, value: Tensor, runs: int) -> Tensor:
        return value.detach().reshape(runs, len(self.prompt), -1).float().cpu()

    def _changing(self, changes: list[Change], runs: range) -> Any:
        def hook(value: Tensor, hook: Any = None) -> Tensor:
            new = value.clone().reshape(len(runs), len(self.prompt), -1)
            for change in changes:
                place = change.run - runs.start, change.positions.to(value.device)
                step = change.vectors.to(value)
                new[place] = step if change.replace else new[place] + step
            return new.reshape(value.shape)

        return hook

    def _keeping(self, name: str, kept: dict[str, Tensor], runs: int) -> Any:
        def hook(value: Tensor, hook: Any = None) -> None:
            kept[name] = self._rows(value, runs)

        return hook

    def _holding(self, changes: list[Change], runs: int) -> list[tuple[str, Any]]:
        first = min((_layer(c.hook) for c in changes), default=-1)
        later = {name: value for name, value in self._patterns.items() if _layer(name) > first}

        def holding(pattern: Tensor) -> Any:
            return lambda value, hook=None: pattern.to(value).expand_as(value)

        return [(name, holding(value)) for name, value in later.items()]

    @cached_property
    def _patterns(self) -> dict[str, Tensor]:
        """The attention patterns of the untouched prompt."""
        names = [name for name in self.model.hook_dict if name.endswith("attn.hook_pattern")]
        if not names:
            raise ConfigError(
                "frozen=True holds the attention of later blocks: expected a model with attention patterns, "
                f"got {type(self.model).__name__}. Leave it out"
            )
        with torch.no_grad():
            _, cache = run_cached(self.model, self._inputs(1), None, names)
        return {name: cache[name].detach() for name in names}


def entering(hooks: Iterable[str]) -> list[str]:
    """What enters the blocks that some hook points lie in; none for those outside of blocks."""
    return sorted({entering_hook(_layer(hook)) for hook in hooks if _layer(hook) > 0})


def _hooks(changes: Iterable[Change]) -> list[str]:
    return list(dict.fromkeys(c.hook for c in changes))


def _layer(hook: str) -> int:
    """The block that a hook point lies in; -1 for one before the blocks or without any."""
    block = block_of(hook)
    return -1 if block is None else block
