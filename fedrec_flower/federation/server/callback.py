"""The interface of callbacks: methods that the server calls during a run."""

from collections.abc import Mapping

from fedrec_flower.core.checkpoint import Checkpoint
from fedrec_flower.federation.results import Metrics


class Callback:
    """Base class of callbacks, with empty methods. A method may raise to end the run.

    The server calls each of its callbacks in the order of the list.
    """

    def on_start(self, round_: int) -> None:
        """Handle the start of training.

        Args:
            round_: the last round that is complete: 0, or the round of the restored checkpoint.
        """

    def after_round(
        self,
        round_: int,
        loss: float,
        num_clients: int,
        failures: Mapping[str, int],
        metrics: Mapping[str, float],
    ) -> None:
        """Handle a trained round, after the server has moved.

        Args:
            round_: the round.
            loss: the mean training loss over the interactions of its clients.
            num_clients: number of clients with valid replies; under central noise, the expected
                number of clients in a cohort.
            failures: number of missing or rejected replies, by kind, in all attempts at the round.
            metrics: further metrics of the strategy and of privacy; and the number of `attempts`
                where it exceeds 1.
        """

    def after_evaluation(self, round_: int, metrics: Metrics, num_clients: int) -> None:
        """Handle an evaluated round.

        Args:
            round_: the round; 0 for the untrained model.
            metrics: means by part and metric.
            num_clients: number of clients evaluated.
        """

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Handle a checkpoint; a run can be resumed from it if it is stored."""

    def should_stop(self) -> bool:
        """Return whether the run ends after the current round; the server asks between rounds."""
        return False
