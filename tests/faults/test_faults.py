"""The table of faults: each is injected for real; taking its guard away must make its row fail."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import rows_disk
from fault import Fault

ROWS = sorted(
    (
        row
        for file in sorted(Path(__file__).parent.glob("rows_*.py"))
        for row in importlib.import_module(file.stem).ROWS
    ),
    key=lambda f: f.row,
)
GUARDED = [fault for fault in ROWS if fault.guard]


@pytest.mark.parametrize("fault", ROWS, ids=lambda f: f.label)
def test_fault(fault: Fault, tmp_path: Path, capsys: Any) -> None:
    fault.check(tmp_path / "at", capsys)


@pytest.mark.parametrize("fault", GUARDED, ids=lambda f: f.label)
def test_row_fails_without_its_guard(fault: Fault, tmp_path: Path, capsys: Any) -> None:
    with ExitStack() as stack:
        for name, replacement in fault.guard.items():
            module, _, attribute = name.rpartition(".")
            stack.enter_context(mock.patch.object(importlib.import_module(module), attribute, replacement))
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            fault.check(tmp_path / "at", capsys)


@pytest.mark.parametrize("what", ["thing", "circuit"])
def test_killed_writers_are_noticed_without_the_write_protocol(tmp_path: Path, what: str) -> None:
    found = rows_disk.killed_writer(tmp_path, what, "--plain")
    assert len(found["torn"]) > 3


def test_every_row_of_the_table_is_here() -> None:
    assert {fault.row for fault in ROWS} >= set(range(1, 31))
    assert len(GUARDED) >= 10
    assert len({fault.label for fault in ROWS}) == len(ROWS)
