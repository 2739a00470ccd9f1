"""Per-FedAvg: shared parameters from which one step suits a client. Source: Fallah et al. 2020.

Algorithm 1 in its first-order form (the paper's FO variant): a local step looks ahead by descent
at rate alpha, takes the gradient there, and applies it, at rate beta, where it stood. The paper
draws a batch for each of the two; here every batch is halved: the first half, rounded down, leads
the way, the other half is learnt from, and a batch of a single sample is learnt from as it is. So
each epoch still meets every sample once, and full batches (`training.batch_size=null`) need no
more epochs. beta is the learning rate. Personal parameters look ahead and learn alike.

What is learnt is meant to be adapted: score it with `finetune_epochs=1`.
"""

from fedrec_flower.core.errors import require
from fedrec_flower.strategies.base import Aggregation, FederationInfo
from fedrec_flower.strategies.client_updates import Plain
from fedrec_flower.strategies.fedopt import ServerOptimizer, SteppingStrategy, chosen


class PerFedAvg(SteppingStrategy):
    """Averages what clients learnt for the parameters one step ahead.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        alpha: length of the step ahead, in units of the learning rates; 0 is plain averaging
            of what the second halves of the batches teach.
        server_optimizer: how the server steps, named as the strategy that averages and steps so.
        server_learning_rate: its learning rate.
        beta1: decay of its first moment, momentum of "fedavgm", in [0, 1).
        beta2: decay of its second moment, in [0, 1).
        tau: floor of its denominator, in units of the parameters.

    Raises:
        ConfigError: if the step ahead goes back.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        alpha: float,
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        require(alpha >= 0, f"strategy.alpha must not be negative: {alpha}")
        step = chosen(server_optimizer, server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, step)
        self.alpha = alpha

    def client_update(self) -> Plain:
        """See `FederatedStrategy.client_update`."""
        return Plain(maml_step=self.alpha)
