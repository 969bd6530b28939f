"""Reads untrusted YAML."""

from pathlib import Path
from typing import Any

import yaml

_MOST_BRACKETS = 1000  # PyYAML takes hours for a million that are not closed


def parse_yaml(text: str, path: Path) -> Any:
    """The content of a YAML file with this text; ``path`` is named in errors.

    Nothing is run: tags of Python objects are refused. So are aliases, a few lines of which may stand for
    terabytes, and more than 1000 lists and mappings in brackets. Raises ValueError.
    """
    try:
        if text.count("[") + text.count("{") > _MOST_BRACKETS:
            raise ValueError(f"must not have more than {_MOST_BRACKETS} brackets")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("must not have aliases")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
