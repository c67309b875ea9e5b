"""Makes the pictures of the README under docs/pictures/ from a run folder's page: needs chromium on the path.

    python tools/screenshots.py runs/demo/index.html [--out docs/pictures]

Wide and narrow, light and dark, the first screen and the first card; nothing is drawn by hand.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.chromium import screenshot  # noqa: E402

#: name -> width, height, dark
PICTURES = {
    "first-screen": (1280, 800, False),
    "first-screen-dark": (1280, 800, True),
    "card": (1280, 1900, False),
    "narrow": (480, 1000, False),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="a page that `gatelens run` or `views.page(...).save` wrote")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--name", default="", help="put before the names of the pictures")
    options = parser.parse_args()
    if not options.page.is_file():
        sys.stderr.write(
            f"{options.page} is not a file; expected a page such as runs/demo/index.html. Make one with `gatelens run`\n"
        )
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    for name, (width, height, dark) in PICTURES.items():
        stem = f"{options.name}-{name}" if options.name else name
        made = screenshot(options.page.resolve(), (options.out / f"{stem}.png").resolve(), width, height, dark)
        sys.stdout.write(f"{made}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
