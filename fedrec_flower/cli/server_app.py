"""The ServerApp: it runs an experiment over the grid that `flwr run` provides.

Hydra overrides come as one string, as on the command line:
`flwr run . --run-config 'overrides="model=ncf num_rounds=20"'`.
"""

import shlex

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Compose the configuration and run the experiment over the given grid."""
    from fedrec_flower.experiment.composition import compose_deployment
    from fedrec_flower.experiment.resume import lock_run_folder
    from fedrec_flower.experiment.run import run
    from fedrec_flower.experiment.run_folder import RunFolder

    words = shlex.split(str(context.run_config.get("overrides", "")))
    config, folder, text = compose_deployment(words)
    with lock_run_folder(folder):
        run(config, RunFolder.create(folder, text), grid=grid)
