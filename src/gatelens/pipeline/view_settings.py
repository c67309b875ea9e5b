"""What a run's page shows: kept in a file of its own, for no result depends on it; a finished run is redrawn with other settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from .. import store
from ..errors import ConfigError
from .config import Config, Views, check_config, with_changes
from .foreign import check_safe
from .resume import stored_config
from .yaml_files import read_yaml

#: in the run folder, outside its manifest
FILE = "views.yaml"


def redrawn_config(run: Path, changes: Sequence[str], safe: bool = False) -> Config:
    """The config of a finished run with the view settings that its page was last drawn with, and these changes.

    Args:
        changes: `views.key=value` each. safe: refuse a config that names what is not ours; it is code, as every config is.

    Raises:
        ConfigError: no run folder, or a change of something that is no view setting.
    """
    config = check_safe(stored_config(run)) if safe else stored_config(run)
    for change in changes:
        if not change.startswith("views."):
            raise ConfigError(
                f"--set {change.partition('=')[0][:80]}: a finished run can be redrawn with other view settings only "
                f"({', '.join(f'views.{name}' for name in Views.model_fields)}). Run a config to change anything else"
            )
    values = config.model_dump(mode="json")
    if store.inside(run, FILE).is_file():
        text = store.read_file(run / FILE, store.MAX_BYTES).decode(errors="replace")
        values["views"] = read_yaml(text, run / FILE) or {}
    return check_config(with_changes(values, changes), str(run / FILE))


def keep_settings(run: Path, views: Views) -> None:
    """Write down what the page was drawn with."""
    text = yaml.safe_dump(views.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    store.replace_file(run / FILE, text.encode())
