"""Runs the Python of the guides as they stand, page by page, in an empty folder.

python tools/run_guides.py [NAME ...]
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

GUIDES = Path(__file__).resolve().parents[1] / "docs" / "guides"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.S | re.M)


def blocks(text: str) -> list[str]:
    """The Python of a page; what is only shown (a hub, a cluster) is marked as text."""
    return _BLOCK.findall(text)


def main() -> int:
    warnings.simplefilter("ignore")
    names, faults = sys.argv[1:], 0
    for page in sorted(GUIDES.glob("*.md")):
        code = blocks(page.read_text("utf-8"))
        if not code or (names and page.stem not in names):
            continue
        began, here = time.monotonic(), Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                known: dict[str, object] = {"__name__": "guide"}
                for block in code:
                    exec(compile(block, str(page), "exec"), known)
            except Exception:
                traceback.print_exc()
                faults += 1
            finally:
                os.chdir(here)
        sys.stderr.write(f"{page.name}: {len(code)} blocks, {time.monotonic() - began:.0f} s\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
