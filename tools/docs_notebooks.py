"""An executed notebook as a page: its text, its code, and the outputs that were stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SOURCE = "https://github.com/gatelens/gatelens/blob/main/docs/tutorials"
COLAB = "https://colab.research.google.com/github/gatelens/gatelens/blob/main/docs/tutorials"
_COLOURED = re.compile(r"\x1b\[[0-9;]*m")


def page(path: Path) -> tuple[str, dict[str, str]]:
    """(Markdown, what replaces each mark in the finished page)."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    outputs: dict[str, str] = {}
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join("".join(o["text"]) for o in cell["outputs"] if o.get("name") == "stdout")
        parts += [_text(printed), *(_output(o, outputs) for o in cell["outputs"] if o["output_type"] != "stream")]
    links = f"[Open in Colab]({COLAB}/{path.name}) · [the notebook]({SOURCE}/{path.name})"
    head, _, rest = "\n\n".join(part for part in parts if part).partition("\n")
    return f"{head}\n\n{links}\n{rest}\n", outputs


def _output(output: dict[str, Any], kept: dict[str, str]) -> str:
    data = output.get("data", {})
    for kind in ("text/html", "image/svg+xml", "image/png"):
        if kind in data:
            mark = f"output-{len(kept)}-stands-here"
            value = "".join(data[kind])
            kept[mark] = f'<img alt="" src="data:image/png;base64,{value.strip()}">' if kind == "image/png" else value
            return f'<div class="gl-output">{mark}</div>'
    return _text("".join(data.get("text/plain", "")))


def _text(text: str) -> str:
    text = _COLOURED.sub("", text).strip("\n")
    return f'```text title="Output"\n{text}\n```' if text else ""
