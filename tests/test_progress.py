"""Progress: who watches is shown a bar, and signs of life while one item takes long."""

from __future__ import annotations

import os
import select
import textwrap

import pytest

from gatelens.errors import progress
from support.warm import Program

pty = pytest.importorskip("pty")  # not there on Windows

HURRY = "from gatelens.errors import progress; progress.AFTER, progress.EVERY = 0.05, 0.05\n"


def on_a_terminal(script: str) -> str:
    """What a script shows on standard error, where that is a terminal."""
    here, there = pty.openpty()
    process = Program(["-c", HURRY + textwrap.dedent(script)], os.environ, shown=os.ttyname(there))
    shown = b""
    while (ready := select.select([here], [], [], 0.05)[0]) or process.poll() is None:
        if ready:
            shown += os.read(here, 65_536)
    os.close(here)
    os.close(there)
    assert process.wait() == 0, shown.decode()
    return shown.decode(errors="replace")


def test_one_long_item_gives_signs_of_life_and_the_bar_ends():
    shown = on_a_terminal("""
        import contextlib, time
        for _ in progress.bar([1, 2], "slow room"):
            time.sleep(0.5)
        with progress.bar(room="a clock"):
            time.sleep(0.5)
        @contextlib.contextmanager
        def room():
            with progress.bar(room="a room of a run"):
                yield
        with room():
            time.sleep(0.5)
    """)
    assert shown.count("a room of a run: 00:") >= 3
    assert shown.count("slow room:   0%") >= 3  # while the first item takes its time
    assert "slow room: 100%" in shown
    assert shown.count("a clock: 00:") >= 3


def test_bars_within_bars_need_no_way_up_where_nothing_is_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "AFTER", 0)
    for _ in progress.bar(range(2), "outer", progress=True):
        for _ in progress.bar(range(3), "inner", progress=True):
            pass
    shown = capsys.readouterr().err
    assert "outer: 100%" in shown
    assert "inner: 100%" in shown
    assert "\x1b[A" not in shown


def test_a_bar_that_an_error_left_open_is_silent():
    shown = on_a_terminal("""
        import time
        def broken():
            left = progress.bar(room="broken", total=9)
            time.sleep(0.3)
            return left
        left = broken()
        print("END", flush=True)
        time.sleep(0.5)
    """)
    assert "broken" in shown.split("END")[0]
    assert shown.split("END")[1].count("broken") <= 1  # closed at the end of the process


def test_every_room_of_find_circuit_is_shown_on_a_terminal():
    shown = on_a_terminal("""
        import torch, warnings
        import gatelens as gl
        progress.AFTER = 0.0  # not even what is quickly done is left out
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        batches = gl.image_batches("digits")
        model = gl.HookedMLP((64, 32, 32, 10), seed=0)
        bases = gl.TrainedSAE(expansion=1, k=5, samples=8000, batch_size=64)
        gl.find_circuit(model, batches, bases=bases, tried_at_most=2, evaluation={"curve_rows": 0}).page(max_cards=2)
    """)
    for room in ("dictionary", "connect", "gates", "evaluate", "drawing"):
        assert f"{room}:" in shown


def test_nobody_watches_nothing_is_shown(capsys):
    assert list(progress.bar([1, 2], "room")) == [1, 2]  # pytest's standard error is no terminal
    with progress.bar(room="clock", progress=False) as clock:
        clock.update()
        clock.show()
    assert capsys.readouterr().err == ""
    assert progress.watched(True)
    assert not progress.watched(False)
