"""SASRec: self-attention over a user's most recent items.

Shared: item vectors, used for input and for scores; item biases, position vectors, attention and
feed-forward layers. Personal: none, so users who never trained can be scored.

Source: Kang and McAuley 2018, "Self-attentive sequential recommendation", section III. Differences:
blocks normalise their input (pre-norm), the one feed-forward layer is as wide as a vector, and
whole items are dropped from the input instead of dropout within the blocks.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.models.layers import Initialized, Normal
from fedrec_flower.models.sequential import SequentialRecommender

_MASKED_LOGIT = -1e9  # its attention weight is zero in float32


class SASRec(SequentialRecommender):
    """Score = output of the last block at the user's last item . item vector + item bias.

    Args:
        num_users: number of users that are loaded first.
        num_items: rows of the item tables.
        task: "ranking"; the model cannot predict ratings.
        embedding_dim: length of a vector; a multiple of num_heads.
        max_length: items per window.
        num_blocks: blocks of attention and feed-forward layers.
        num_heads: attention heads.
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
        num_blocks: int,
        num_heads: int,
        init_std: float,
        input_dropout: float,
    ) -> None:
        require(num_blocks >= 1, f"model.num_blocks must be at least 1: {num_blocks}")
        require(
            num_heads >= 1 and embedding_dim % num_heads == 0,
            f"model.num_heads={num_heads} must divide model.embedding_dim={embedding_dim}",
        )
        super().__init__(
            num_users, num_items, task, embedding_dim, max_length, init_std, input_dropout
        )
        positions = nn.Parameter(torch.zeros(max_length, embedding_dim))
        self.position_embedding = Initialized(positions, Normal(init_std))
        self.blocks = nn.ModuleList(_Block(embedding_dim, num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(embedding_dim)
        self.num_heads = num_heads

    @property
    @override
    def floats_per_entry(self) -> int:
        # Vectors, and the attention weights of each head.
        attention = 3 * self.window * self.num_heads
        return len(self.blocks) * (12 * self.item_embedding.embedding_dim + attention)

    @override
    def encode_windows(self, vectors: Tensor, present: Tensor) -> Tensor:
        length = vectors.shape[1]
        earlier = torch.ones(length, length, device=vectors.device).tril()
        # Each position attends to itself, or the softmax of padding would have no input.
        diagonal = torch.eye(length, device=vectors.device)
        visible = torch.maximum(earlier * present[:, None, :], diagonal)
        hidden = vectors + self.position_embedding * present[..., None]
        for block in self.blocks:
            hidden = block(hidden, (1 - visible) * _MASKED_LOGIT)
        return cast("Tensor", self.norm(hidden))


class _Block(nn.Module):
    """Attention, then a feed-forward layer; each reads its normalised input and adds to it."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        # A bias would add the same amount to all logits of a query, which softmax ignores.
        self.key = nn.Linear(dim, dim, bias=False)
        self.wide = nn.Linear(dim, dim)
        self.narrow = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Transform (n, length, dim); mask (n, length, length) is added to the logits."""
        normalised = self.attention_norm(hidden)
        query = self._heads(self.query(normalised))
        key = self._heads(self.key(normalised))
        value = self._heads(self.value(normalised))
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + mask[:, None]
        attended = (logits.softmax(-1) @ value).transpose(1, 2).reshape(hidden.shape)
        hidden = hidden + attended
        output: Tensor = self.narrow(functional.relu(self.wide(self.norm(hidden))))
        return hidden + output

    def _heads(self, rows: Tensor) -> Tensor:
        """(n, length, dim) as (n, num_heads, length, dim / num_heads)."""
        n, length, dim = rows.shape
        return rows.view(n, length, self.num_heads, dim // self.num_heads).transpose(1, 2)
