"""The configs that come with the package, so that `gatelens run demo` works in any folder."""

from __future__ import annotations

from pathlib import Path

from ..lazy import understood

#: in an installed package they lie within it; in a checkout they are the repository's own `configs/`
_PACKAGE = Path(__file__).resolve().parents[1]
PLACES = (_PACKAGE / "configs", _PACKAGE.parents[1] / "configs")
#: names of the version before
_OLD = {"mnist_seed": "mnist_tied"}


def shipped_configs() -> dict[str, Path]:
    """name -> file; empty where neither folder exists."""
    folder = next((place for place in PLACES if place.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def config_file(given: str | Path) -> Path:
    """The file that is meant: the one at that path, else the shipped config of that name."""
    path = Path(given)
    if path.is_file():
        return path
    name = understood(str(given), _OLD, "the config")
    return shipped_configs().get(name, path)
