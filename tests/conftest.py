"""What all tests share: offline, one thread, real data by name, and a small trained network."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # a second thread that has nothing to do leaves its core to the other worker
os.environ.setdefault("MPLBACKEND", "agg")

import gc
from pathlib import Path

import pytest
import torch

import typecheck

torch.set_num_threads(1)
typecheck.install()
gc.disable()  # imports make a million objects that all stay

#: the files that take longest, in that order: a file is one worker's (its fixtures are made once), and nothing long is left to the end
LONGEST = """test_estimate test_walk test_readme test_distributed test_device test_smollm2 test_input_tuning test_faults
test_bench_checks test_circuits test_engine test_views test_pages_in_chromium test_notebooks_in_chromium test_cli_first
test_orthogonality test_progress test_tracking test_rotation_recipe""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {stem: i for i, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same numbers, whichever tests its process ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """GATELENS_DATA, with real MNIST and texts."""
    folder = os.environ.get("GATELENS_DATA")
    if not folder:
        pytest.skip("needs real data: set GATELENS_DATA to a folder with mnist/ and text/")
    return Path(folder)


@pytest.fixture(scope="session")
def digits():
    """(model, fitting part, held-out part): a 64-24-24-24-10 net trained on scikit-learn's digits."""
    import gatelens as gl
    from gatelens.models.training import Training

    fit, held_out = gl.image_batches("digits")
    return Training(epochs=15, lr=3e-3).fit(gl.HookedMLP((64, 24, 24, 24, 10)), fit), fit, held_out
