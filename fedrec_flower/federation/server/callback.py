"""The interface of callbacks: methods that the server calls during a run."""

from fedrec_flower.core.checkpoint import Checkpoint
from fedrec_flower.federation.results import Evaluated, TrainedRound


class Callback:
    """Base class of callbacks, with empty methods. A method may raise to end the run.

    The server calls each of its callbacks in the order of the list.
    """

    def on_start(self, round_: int) -> None:
        """Handle the start of training.

        Args:
            round_: the last round that is complete: 0, or the round of the restored checkpoint.
        """

    def after_round(self, trained: TrainedRound) -> None:
        """Handle a trained round, after the server has moved."""

    def after_evaluation(self, evaluated: Evaluated) -> None:
        """Handle an evaluated round; round 0 is the untrained model."""

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Handle a checkpoint; a run can be resumed from it if it is stored."""

    def should_stop(self) -> bool:
        """Return whether the run ends after the current round; the server asks between rounds."""
        return False
