"""The ServerApp that `flwr run` starts is the same experiment as the command line's."""

import json
from pathlib import Path

from flwr.app import Context, RecordDict

from fedrec_flower.client.app import app as client_app
from fedrec_flower.federation import InProcessGrid
from fedrec_flower.server_app import app


def test_the_server_app_runs_an_experiment_over_the_grid_it_is_given(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    overrides = f"experiment=smoke output_dir={folder} dataset.cache_dir={tmp_path / 'cache'}"
    context = Context(
        run_id=1,
        node_id=0,
        node_config={},
        state=RecordDict(),
        run_config={"overrides": overrides},
    )
    app(grid=InProcessGrid(client_app, 2), context=context)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["randomness"] == "private"
