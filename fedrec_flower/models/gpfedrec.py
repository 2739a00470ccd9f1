"""GPFedRec: every client begins with item vectors made of those of clients like it.

Shared: item vectors, of which the server gives each client a version of its own, the mean over
its neighbours in a graph of clients: see `strategies.graph`. Personal: the score function; with
`score_with=own` also the item vectors as the client's own last training left them.

The paper's clients start from the mean over all clients and a term of the loss pulls them towards
their own version; here they start from it, where that pull leads, so that half the bytes go down,
and `strategy.pull` keeps them near. The score function is PFedRec's: the paper feeds a network of
the client's own with user and item vector, but the client's user is always the same.

Source: Zhang et al. 2024, "GPFedRec: Graph-guided personalization for federated recommendation",
Algorithm 1.
"""

from fedrec_flower.models.base import Recommender
from fedrec_flower.models.pfedrec import PFedRec


class GPFedRec(PFedRec):
    """Score = the client's weights . its version of the item vector + the client's bias.

    Score function and item vectors learn from each batch at once. Arguments: see `PFedRec`;
    `score_with=shared` scores with the version that the server has just made for the client.
    """

    def phases(self, epoch: int) -> list[frozenset[str]]:
        """See `Recommender.phases`: all at once."""
        return Recommender.phases(self, epoch)
