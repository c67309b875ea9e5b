"""Python programs in processes of their own whose libraries are loaded already.

A fresh Python spends six seconds of the processor on the imports of torch, transformer-lens and sae-lens, more than most
programs of the tests take. So one server (`multiprocessing`'s) imports them once, and each program is forked from it. What is
about starting itself (what the command imports, how light the store is) starts Python instead.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from pathlib import Path

#: what the server imports; gatelens imports these where it uses them
LIBRARIES = ["transformer_lens", "sae_lens", "sklearn.datasets", "matplotlib.pyplot", "gatelens.pipeline.running"]
TESTS = str(Path(__file__).resolve().parents[1])


class Program:
    """A running program, as `subprocess.Popen` would be with its output as text.

    Args:
        arguments: those of Python: `-c code`, `-m module` or a script, and its own.
        shown: where both outputs go; without it they are kept for `communicate`.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path | None = None, shown: str = ""
    ):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        self.args = list(arguments)
        self._kept = [] if shown else [tempfile.mkstemp(suffix=name) for name in ("out", "err")]
        for descriptor, _ in self._kept:
            os.close(descriptor)
        places = [place for _, place in self._kept] or [shown, shown]
        path = [p for p in sys.path if not p.startswith(TESTS)]
        given = (self.args, dict(environment), str(folder or Path.cwd()), path, places)
        self._process, self._asking = context.Process(target=_become, args=given), threading.Lock()
        self._process.start()

    @property
    def returncode(self) -> int | None:
        with self._asking:  # how it ended can be read once: two threads that ask must not both
            return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        connection.wait([self._process.sentinel], timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and standard error, once it has ended."""
        self.wait(timeout)
        out, err = (Path(place).read_text(encoding="utf-8") for _, place in self._kept)
        for _, place in self._kept:
            os.unlink(place)
        return out, err


def run(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """What `subprocess.run` says of a program."""
    program = Program(arguments, os.environ | environment, folder)
    out, err = program.communicate()
    return subprocess.CompletedProcess(program.args, program.wait(), out, err)


def _become(arguments: list[str], environment: dict[str, str], folder: str, path: list[str], places: list[str]) -> None:
    """In the forked process: be the program."""
    for descriptor, place in enumerate(places, 1):
        there = os.open(place, os.O_WRONLY | os.O_NOCTTY)
        os.dup2(there, descriptor)
        os.close(there)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    kind, *rest = arguments
    try:
        if kind == "-c":
            sys.argv, sys.path[:] = ["-c", *rest[1:]], ["", *path]
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), main.__dict__)
        elif kind == "-m":
            sys.argv, sys.path[:] = rest, [folder, *path]
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[:] = arguments, [str(Path(kind).parent), *path]
            runpy.run_path(kind, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
