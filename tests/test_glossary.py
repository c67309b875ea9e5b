"""The glossary of the docs is the one that pages carry."""

from __future__ import annotations

from pathlib import Path

from gatelens.views.glossary import words

DOCS = Path(__file__).resolve().parents[1] / "docs" / "glossary.md"


def test_the_glossary_in_docs_is_that_of_the_pages():
    text = DOCS.read_text(encoding="utf-8")
    assert text.startswith("# Glossary\n")
    rows = [line for line in text.splitlines() if line.startswith("- **")]
    assert rows == [f"- **{name}**: {meaning}" for name, meaning in words()]
