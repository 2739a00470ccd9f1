"""The ServerApp: an experiment over whatever grid `flwr run` provides.

Hydra overrides come as one string, as on the command line:
`flwr run . --run-config 'overrides="model=ncf num_rounds=20"'`.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@dataclass(frozen=True, slots=True)
class GivenGrid:
    """An engine that somebody else has started.

    Attributes:
        grid: the grid it provides.
    """

    grid: Grid

    def run(self, serve: Callable[[Grid], None], log: Path) -> None:
        """Serve over the grid; whoever started the engine logs."""
        del log
        serve(self.grid)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Compose the configuration and run the experiment over the given grid."""
    from fedrec_flower.cli import compose
    from fedrec_flower.experiment import run
    from fedrec_flower.results import RunFolder

    config, folder = compose(shlex.split(str(context.run_config.get("overrides", ""))))
    # The server knows the seed, so no client's draw may follow from it, whatever was asked for.
    run(config | {"randomness": "private"}, RunFolder.create(folder), GivenGrid(grid))
