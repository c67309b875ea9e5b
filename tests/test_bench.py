"""`gatelens bench`: every benchmark of the repository can be started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gatelens import bench
from gatelens.errors import ConfigError


def test_every_benchmark_is_importable_by_the_command():
    """In a process of its own, in which no test has put anything on the path."""
    program = "from gatelens import bench\nfor n in bench.names(): print(n, bench.load(n).SEEDS, bench.load(n).measure)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == bench.names()


def test_an_unknown_benchmark_is_named_with_its_neighbours():
    with pytest.raises(ConfigError, match="did you mean 'rotations'"):
        bench.load("rotation")
