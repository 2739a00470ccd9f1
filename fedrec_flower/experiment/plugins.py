"""Configuration of installed plug-ins: their yaml joins the search path of Hydra.

A plug-in is an installed package with entry points of these groups:

- `fedrec_flower.plugins`: a package whose classes a configuration may name (models, strategies,
  data sources, callbacks, ...); see `core.instantiate`.
- `fedrec_flower.conf`: a package that contains yaml files in folders named like the groups, such as
  `model/mine.yaml`. They can then be chosen like built-in ones: `model=mine`.
- `fedrec_flower.metrics`: a class of ranking metrics; see `evaluation.metrics.registry`.
"""

from functools import cache
from importlib.metadata import entry_points

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from typing_extensions import override


class InstalledConfigurations(SearchPathPlugin):
    """Adds the yaml of installed plug-ins after the built-in ones, which take precedence."""

    @override
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for name, package in _installed():
            search_path.append(provider=name, path=f"pkg://{package}")


@cache  # reading the metadata of all packages takes longer than a composition
def _installed() -> list[tuple[str, str]]:
    """Name and package of each entry point of the group `fedrec_flower.conf`."""
    return [(point.name, point.value) for point in entry_points(group="fedrec_flower.conf")]


def register() -> None:
    """Make Hydra use the configurations of installed plug-ins."""
    Plugins.instance().register(InstalledConfigurations)
