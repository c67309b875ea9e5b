"""What gatelens 0.1.0 wrote, written by it and kept in tests/fixtures: it loads, or the error names what remakes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import gatelens as gl
from gatelens.evaluation.report import Report
from gatelens.saving import load_basis
from gatelens.store import parse_json

OLD = Path(__file__).parent / "fixtures" / "v0_1_0"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """The rows on which the dictionaries of the fixture were trained."""
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)).relu()
    return x, gl.mlp_segments(gl.HookedMLP((8, 6, 6, 3), seed=0))[0].forward(x)


def test_a_circuit(old):
    circuit = gl.Circuit.load(old / "circuit", gl.mlp_segments(gl.HookedMLP((8, 6, 6, 3), seed=0)))
    assert circuit.info["model"] == "HookedMLP"
    (gates,) = circuit.gates.values()
    assert len(gates) == 8
    x, _ = drawn()
    basis = circuit.bases["hook_post.0"]
    left = (x - basis.decode(basis.encode(x))).square().sum() / (x - x.mean(0)).square().sum()
    assert left < 0.7  # a dictionary of these rows still explains them
    wires = circuit.connectors[circuit.segments[0].name]
    assert wires(basis.encode(x)).shape == (400, 8)


def test_a_transcoder_and_a_rotation(old):
    x, y = drawn()
    basis = load_basis(old / "transcoder")
    assert basis.reconstruct(x).shape == y.shape
    assert (y - basis.reconstruct(x)).square().sum() < (y - y.mean(0)).square().sum()
    rotation = load_basis(old / "rotation")
    centred = x.double() - x.double().mean(0)
    top = torch.linalg.eigh(centred.T @ centred)[1].flip(1).T[:3]  # the principal components, anew
    assert torch.allclose((top @ rotation.matrix.double().T).abs(), torch.eye(3).double(), atol=1e-4)


def test_a_report_and_a_runs_parts(old):
    report = Report.from_dict(parse_json((old / "run/report.json").read_bytes(), "report"))
    assert report.model["metric"] == "accuracy"
    circuit = gl.Circuit.load(old / "run/circuit")
    assert circuit.info["data"] == "digits"
    acts = gl.Activations.open(old / "run/activations/fit")
    assert acts.rows == 120
