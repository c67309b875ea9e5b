"""Names of the version before are taken for one version more, with a warning that says the new one."""

from __future__ import annotations

import pytest
import torch

from gatelens import Connector, GramLasso, JacobianRotation, MeanJacobian, SgdL1, VirtualWeights, planted, stability
from gatelens.jacobians.sparsity import reciprocal_in, sparsity
from gatelens.pipeline.building import build
from gatelens.pipeline.shipped_configs import config_file


@pytest.mark.parametrize("solver", [GramLasso, MeanJacobian, SgdL1, VirtualWeights])
def test_keywords(solver):
    with pytest.warns(DeprecationWarning, match="mean_wires"):
        assert solver(mean_edges=3) == solver(mean_wires=3)


def test_keywords_in_a_config():
    assert build({"use": "GramLasso", "mean_edges": 3}, "solver") == GramLasso(mean_wires=3)


def test_attributes_and_functions():
    with pytest.warns(DeprecationWarning, match="wires"):
        assert Connector.from_dense(torch.eye(3), torch.zeros(3)).edges == 3
    with pytest.warns(DeprecationWarning, match="score_wires"):
        assert planted.score_edges is planted.score_wires
    with pytest.warns(DeprecationWarning, match="wire_jaccard"):
        assert stability.edge_jaccard is stability.wire_jaccard


def test_the_reciprocal_measure():
    with pytest.warns(DeprecationWarning, match="reciprocal"):
        assert JacobianRotation(objective="seed") == JacobianRotation(objective="reciprocal")
    measured = sparsity(torch.eye(3))
    with pytest.warns(DeprecationWarning, match="reciprocal"):
        assert measured.seed == measured.reciprocal
    assert reciprocal_in({"seed": {"0.1": 2.0}}) == {"0.1": 2.0}  # a report of 0.1


def test_a_shipped_config():
    with pytest.warns(DeprecationWarning, match="mnist_tied"):
        assert config_file("mnist_seed") == config_file("mnist_tied")
