"""GRU4Rec: a recurrent network over a user's most recent items.

Shared: item vectors, used for input and for scores; item biases; the weights of the cell.
Personal: none, so users who never trained can be scored.

Source: Hidasi et al. 2016, "Session-based recommendations with recurrent neural networks"; the
cell is that of Cho et al. 2014. Losses over sampled negatives replace the paper's losses over the
other sessions of a mini-batch, which a client does not have.
"""

from torch import Tensor, cat, nn
from typing_extensions import override

from fedrec_flower.models.ops.gru import gru_scan
from fedrec_flower.models.sequential import SequentialRecommender


class GRU4Rec(SequentialRecommender):
    """Score = hidden state after the user's last item . item vector + item bias.

    Args:
        num_users: number of users that are loaded first.
        num_items: rows of the item tables.
        task: "ranking"; the model cannot predict ratings.
        embedding_dim: length of a vector, and of the hidden state.
        max_length: items per window; the hidden state restarts at zero in each window.
        init_std: standard deviation of the initial vectors.
        input_dropout: share of the items that a local epoch ignores, in [0, 1).
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        task: str,
        embedding_dim: int,
        max_length: int,
        init_std: float,
        input_dropout: float,
    ) -> None:
        super().__init__(
            num_users, num_items, task, embedding_dim, max_length, init_std, input_dropout
        )
        self.from_item = nn.Linear(embedding_dim, 3 * embedding_dim)
        self.gates_from_state = nn.Linear(embedding_dim, 2 * embedding_dim, bias=False)
        self.candidate_from_state = nn.Linear(embedding_dim, embedding_dim)

    @property
    @override
    def floats_per_entry(self) -> int:
        # Gates, candidates and states.
        return 12 * self.item_embedding.embedding_dim

    @override
    def encode_windows(self, vectors: Tensor, present: Tensor) -> Tensor:
        # Initial vectors are short, as suits the scores; the gates need larger inputs.
        inputs = self.from_item(vectors * vectors.shape[-1] ** 0.5)
        weight = cat([self.gates_from_state.weight, self.candidate_from_state.weight])
        return gru_scan(inputs, present, weight, self.candidate_from_state.bias)
