"""MkDocs' hooks: the pages that are made from the code, the results and the notebooks, and from nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "src")]

import docs_notebooks  # noqa: E402
import docs_reference  # noqa: E402
import docs_results  # noqa: E402

#: outputs of notebooks that are HTML already: page -> mark -> what stands there
_HTML: dict[str, dict[str, str]] = {}


def on_files(files: Any, config: Any) -> Any:
    """Add the made pages; a notebook's page stands in the place of its file."""
    made = {
        "reference/command-line.md": docs_reference.command_line(),
        "reference/config.md": docs_reference.configs(),
        "reference/api.md": docs_reference.api(),
        "reference/errors.md": docs_reference.errors(),
        "results/index.md": docs_results.page(ROOT / "docs" / "results"),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text("utf-8").replace("docs/house.md", "house.md"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text("utf-8"),
    }
    for file in [f for f in files if f.src_uri.endswith(".ipynb")]:
        files.remove(file)
        text, outputs = docs_notebooks.page(Path(file.abs_src_path))
        name = f"{file.src_uri.removesuffix('.ipynb')}.md"
        made[name], _HTML[name] = text, outputs
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_config(config: Any) -> Any:
    """Notebooks in the nav are pages."""
    config["nav"] = _named(config["nav"])
    return config


def _named(nav: Any) -> Any:
    if isinstance(nav, str):
        return nav.replace(".ipynb", ".md")
    if isinstance(nav, dict):
        return {key: _named(value) for key, value in nav.items()}
    return [_named(item) for item in nav]


def on_page_markdown(text: str, **_: Any) -> str:
    """A link to a notebook leads to its page."""
    return re.sub(r"\]\((?!https?:)([^)]+)\.ipynb", r"](\1.md", text)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Outputs go in after Markdown is done, which would take their blank lines for paragraphs."""
    for mark, output in _HTML.get(page.file.src_uri, {}).items():
        html = html.replace(mark, output)
    return html
