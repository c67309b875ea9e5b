"""The README's script is the example's script, to the letter."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_readme_shows_the_script_that_is_run():
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S).group(1)
    script = (ROOT / "examples" / "00_readme.py").read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    assert shown == script
    ast.parse(shown)


def test_the_readmes_pictures_exist():
    for name in re.findall(r"\]\((docs/pictures/[^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / name).stat().st_size > 10_000
