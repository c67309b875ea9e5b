"""Data packages: folders of dictionaries and texts that are installed beside this package, found and never imported."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

#: a data package names its folder under this group of entry points
GROUP = "gatelens.dictionaries"


def package_folder(name: str) -> Path | None:
    """The folder of the data package of that name; None where none is installed."""
    for entry in metadata.entry_points(group=GROUP):
        if entry.name == name:
            spec = find_spec(entry.value)
            places = list(spec.submodule_search_locations or []) if spec else []
            if places:
                return Path(places[0])
    return None
