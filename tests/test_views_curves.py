"""Figures: whole SVG, text as text, the page's own colour."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch

from gatelens.errors import DataError
from gatelens.evaluation import WireCurve
from gatelens.invariants import SummaryCurve
from gatelens.views.curves import curve_figure, matched_matrix_figure, summary_figure, wire_figure
from gatelens.views.explained import explained, sentence_of


def test_curves_are_inline_svg_with_text():
    svg = curve_figure(
        {"active subspace": ([2, 4, 8], [0.3, 0.9, 0.97]), "random": ([2, 4, 8], [0.1, None, 0.2])},
        "dimensions kept",
        "accuracy",
        nulls=["random"],
        levels={"clean": 0.977},
        log_x=True,
    )
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    text = "".join(root.itertext())
    for words in ("active subspace", "random (null)", "dimensions kept", "clean"):
        assert words in text
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert "<?xml" not in svg
    assert svg == curve_figure(
        {"active subspace": ([2, 4, 8], [0.3, 0.9, 0.97]), "random": ([2, 4, 8], [0.1, None, 0.2])},
        "dimensions kept",
        "accuracy",
        nulls=["random"],
        levels={"clean": 0.977},
        log_x=True,
    )


def test_matched_matrix_is_a_picture_with_axes():
    svg = matched_matrix_figure(torch.eye(3).flip(0), [0, 1, 2], [2, 1, 0], title="other seed")
    assert "other seed" in "".join(ElementTree.fromstring(svg).itertext())


def test_figures_of_our_own_results():
    summary = SummaryCurve(
        "hook_post.0", "accuracy", 0.97, (2, 8), {"active subspace": (0.6, 0.97), "random directions": (0.1, 0.2)}
    )
    text = "".join(ElementTree.fromstring(summary_figure(summary)).itertext())
    assert "random directions (null)" in text
    assert "dimensions of hook_post.0 kept" in text
    wires = WireCurve("a -> b", "mean", (0, 5), (0.0, 0.9), (0.0, 0.3), (1.0, None))
    assert "wires kept (others: mean)" in "".join(ElementTree.fromstring(wire_figure(wires)).itertext())


def test_what_is_explained_stands_on_the_page_with_its_nulls_and_curves():
    coverage = {"outputs": 4, "verified": 1, "wires": 2, "variance": 0.25, "firings": 0.5, "gap": None}
    curve = WireCurve("a -> b", "mean", (0, 5), (0.0, 0.9), (0.0, 0.3), (1.0, 0.1)).to_dict()
    report = {
        "model": {"metric": "accuracy"},
        "coverage": {
            "sentence": "Verified gates explain 25 %.",
            "segments": {"a -> b": coverage},
            "baselines": {"random_weights": {"a -> b": {**coverage, "variance": 0.125}}, "neurons": {}},
        },
        "curves": {"a -> b": {recipe: {**curve, "recipe": recipe} for recipe in ("mean", "zero", "resample")}},
    }
    page = str(explained(report))
    for words in ("<td>0.250</td>", "random weights", "<td>0.125</td>", "wires kept (others: resample)", "<b>zero</b>"):
        assert words in page
    assert page.count("<svg") == 3
    assert "<td>neurons" not in page  # not measured in this segment
    assert sentence_of(report) == "Verified gates explain 25 %."
    assert explained({}) == ""


def test_figures_refuse():
    with pytest.raises(DataError, match="at least one series"):
        curve_figure({}, "x", "y")
    with pytest.raises(DataError, match="2 x and 1 y"):
        curve_figure({"a": ([1, 2], [1.0])}, "x", "y")
    with pytest.raises(DataError, match="between -1 and 1"):
        matched_matrix_figure(torch.full((2, 2), 3.0))
    with pytest.raises(DataError, match="come in twos"):
        matched_matrix_figure(torch.eye(2), [0], [0, 1])
