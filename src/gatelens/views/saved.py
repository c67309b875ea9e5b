"""saved_in: what a reader pinned and named in a page, read back from the copy that it was saved in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

#: larger than anybody's pins; what is longer was not written by a page of ours
_MOST = 1_000_000


def saved_in(page: str | Path) -> dict[str, Any]:
    """Groups of pinned gates and features, and names of one's own, from a page's file; empty where there are none.

    What it finds is checked: groups with a name and items, names by feature, all of them texts.
    """
    path = Path(page)
    if not path.is_file():
        return {}
    found = re.search(r'<script type="application/json" id="saved">([^<]*)<', path.read_text("utf-8", "replace"))
    if not found or len(found[1]) > _MOST:
        return {}
    try:
        values = json.loads(found[1])
    except ValueError:
        return {}
    values = values if isinstance(values, dict) else {}
    groups, names = values.get("groups"), values.get("names")
    groups = [_group(g) for g in groups if isinstance(g, dict)] if isinstance(groups, list) else []
    names = {str(k): str(v) for k, v in names.items()} if isinstance(names, dict) else {}
    return {"groups": groups, "names": names} if groups or names else {}


def _group(values: dict[str, Any]) -> dict[str, Any]:
    """A group; items are features of a segment (`s0.IF_17`), all else is left out."""
    held = values.get("items")
    items = [str(i) for i in (held if isinstance(held, list) else []) if re.fullmatch(r"s\d+\.[IO]F_\d+", str(i))]
    return {"name": str(values.get("name", ""))[:80], "items": items}
