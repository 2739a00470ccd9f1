"""Per-FedAvg: shared parameters that one local step adapts to a client. Fallah et al. 2020.

Algorithm 1 in its first-order form (the paper's FO variant): an inner step of SGD at rate alpha,
then the gradient at that point is applied, at rate beta, to the values before the inner step. The
paper draws a batch for each of the two. Here every batch is halved: the first half, rounded down,
gives the inner step, the second half the gradient; a batch of a single sample has no inner step.
So each epoch still uses every sample once, and full batches (`training.batch_size=null`) need no
more epochs. beta is the learning rate. Personal parameters are trained in the same way.

The trained parameters are meant to be adapted: evaluate them with `finetune_epochs=1`.
"""

from typing_extensions import override

from fedrec_flower.core.ranges import NonNegativeFloat
from fedrec_flower.strategies.aggregators.server_optimizers import ServerOptimizer
from fedrec_flower.strategies.base import Aggregation, FederationInfo
from fedrec_flower.strategies.client_updates import LocalUpdateRule, PlainUpdate
from fedrec_flower.strategies.fedopt import FedOpt


class PerFedAvg(FedOpt):
    """FedOpt whose clients train by first-order MAML.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        alpha: length of the inner step, in units of the learning rates; with 0, clients train on
            the second halves of their batches.
        server_optimizer: the server's optimizer.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        alpha: NonNegativeFloat,
        server_optimizer: ServerOptimizer,
    ) -> None:
        super().__init__(info, aggregation, server_optimizer)
        self.alpha = alpha

    @override
    def client_update(self) -> LocalUpdateRule:
        return PlainUpdate(maml_step=self.alpha)
