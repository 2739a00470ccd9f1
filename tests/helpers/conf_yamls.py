"""Reads the yamls of the configuration without composing a run."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fedrec_flower.experiment.composition import CONF


def content(path: Path) -> dict[str, Any]:
    """Return the keys of a yaml, with those of the fragments that it includes in its node."""
    plain = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(plain, dict)
    whole = {str(key): value for key, value in plain.items()}
    for entry in whole.get("defaults", []):
        if isinstance(entry, dict):
            for group, option in entry.items():
                if group.endswith("@_here_"):
                    fragment = CONF / group.strip("/").removesuffix("@_here_") / f"{option}.yaml"
                    whole = content(fragment) | whole
    return whole
