"""The configs that come with the package, so that `gatelens run demo` works in any folder."""

from __future__ import annotations

from pathlib import Path

#: in an installed package they lie within it; in a checkout they are the repository's own `configs/`
_PACKAGE = Path(__file__).resolve().parents[1]
PLACES = (_PACKAGE / "configs", _PACKAGE.parents[1] / "configs")


def shipped_configs() -> dict[str, Path]:
    """name -> file; empty where neither folder exists."""
    folder = next((place for place in PLACES if place.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def config_file(given: str | Path) -> Path:
    """The file that is meant: the one at that path, else the shipped config of that name."""
    path = Path(given)
    return path if path.is_file() else shipped_configs().get(str(given), path)
