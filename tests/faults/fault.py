"""What a row of the table is, and how it is run: the fault is injected for real and met inside the real command."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from gatelens import HookedMLP
from gatelens.cli import walks
from gatelens.cli.main import main
from gatelens.data import Batches

HOOKS = ("hook_post.0", "hook_post.1")


@dataclass
class Injected:
    """A fault that is in place.

    Attributes:
        act: what the user does; its value goes to `after`.
        after: looks at the state that is left behind.
    """

    act: Callable[[], Any]
    after: Callable[[Any], None] = lambda result: None


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        row: its number there.
        name: the fault, in a few words.
        inject: does the damage below a folder.
        error: what must be raised; None when the fault must be lived with.
        says: parts of the sentence that the user must see on standard error.
        exit: of the command; by default 2 with an error and 0 without.
        guard: where the guard is ("module.attribute") and what stands there when it is taken away: then the row must fail.
    """

    row: int
    name: str
    inject: Callable[[Path], Injected]
    error: type[BaseException] | None = None
    says: Sequence[str] = ()
    exit: int | None = None
    guard: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.row:02d}-{self.name.replace(' ', '-')}"

    def check(self, folder: Path, capsys: Any) -> None:
        """Inject the fault and assert everything that the row says."""
        injected = self.inject(folder)
        capsys.readouterr()
        code, raised, result = through_the_command(injected.act)
        said = capsys.readouterr().err
        expected = self.exit if self.exit is not None else (0 if self.error is None else 2)
        assert type(raised) is (self.error or type(None)), f"raised {raised!r}, expected {self.error}"
        assert code == expected, f"exit code {code}, expected {expected}"
        if code == 1:  # an exception that is not ours: Python itself prints it, with its notes
            said += "\n".join([str(raised), *getattr(raised, "__notes__", [])])
        for part in self.says:
            assert part in said, f"{part!r} is not in {said!r}"
        injected.after(result)


def through_the_command(act: Callable[[], Any]) -> tuple[int, BaseException | None, Any]:
    """Exit code of the command, with `act` in the place of a verb; what was raised in it, and its value."""
    seen: dict[str, Any] = {}

    def verb(options: Any) -> int:
        try:
            seen["result"] = act()
        except BaseException as error:
            seen["error"] = error
            raise
        return 0

    import warnings

    with mock.patch.object(walks, "act", verb), warnings.catch_warnings():
        try:
            code = main(["run", "CONFIG"])
        except Exception:
            code = 1  # as Python exits when nothing catches
    return code, seen.get("error"), seen.get("result")


# what the rows work on


def tiny_model(seed: int = 0) -> HookedMLP:
    return HookedMLP((8, 6, 6, 3), seed=seed)


class Counting(HookedMLP):
    """Counts its forward passes, and can do something in one of them."""

    def __init__(self, at: int = -1, then: Callable[[], None] = lambda: None):
        super().__init__((8, 6, 6, 3))
        self.passes, self.at, self.then = 0, at, then

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        if self.passes == self.at:
            self.then()
        return super().forward(x)


def forty_rows(seed: int = 0) -> Batches:
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(seed))
    places = torch.arange(40)
    return Batches(x, places % 3, torch.ones(40, dtype=torch.bool), places, 8, "accuracy", "forty rows")


def hooks_on(model: Any) -> int:
    """How many hooks of whatever kind are on the model's modules."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def strays(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob(".*") if p.is_file()]


def rewrite_json(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def rehash(folder: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed: an attacker can do that too."""
    from gatelens.store.shards import fingerprint

    entry = fingerprint((folder / name).read_bytes())
    rewrite_json(folder / "manifest.json", lambda m: {**m, "files": {**m["files"], name: entry}})


@functools.cache
def config_values() -> dict[str, Any]:
    """A config that runs in a second or two."""
    return {
        "name": "tiny",
        "model": {"use": "HookedMLP", "sizes": [64, 8, 8, 10], "train": {"epochs": 1}},
        "data": {"use": "image_batches", "source": "digits", "rows": [300, 100]},
        "bases": {"use": "Neurons"},
        "solver": {"use": "ReluOMP", "max_fan_in": 3},
        "evaluation": {"baselines": []},
    }
