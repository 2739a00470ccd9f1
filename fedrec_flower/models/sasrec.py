"""SASRec: self-attention over the items a user had last.

Shared: item vectors, which are read and scored with, item biases, vectors of positions, attention
and feed-forward layers. Personal: nothing, so users who never trained can be scored as well.

Source: Kang and McAuley 2018, "Self-attentive sequential recommendation", section III; blocks
normalise their input (pre-norm), one feed-forward layer is as wide as a vector, and instead of
dropout within the blocks, whole items are dropped from the input.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedrec_flower.core.errors import require
from fedrec_flower.models.sequential import SequentialRecommender

_NEVER = -1e9  # an attention logit whose weight is zero in float32


class SASRec(SequentialRecommender):
    """Score = last layer's vector at the user's last item . item vector + item bias.

    Args:
        num_users: how many users are loaded at first.
        num_items: rows of the item tables.
        task: "ranking"; what comes next is no rating.
        embedding_dim: length of a vector; a multiple of num_heads.
        max_length: how many items are read at once.
        num_blocks: blocks of attention and feed-forward layers.
        num_heads: attention heads.
        init_std: standard deviation of the initial vectors.
        input_dropout: share of the items that a local epoch leaves unread, in [0, 1).
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
        fits = num_heads >= 1 and embedding_dim % num_heads == 0
        require(
            fits, f"model.num_heads={num_heads} must divide model.embedding_dim={embedding_dim}"
        )
        super().__init__(
            num_users, num_items, task, embedding_dim, max_length, init_std, input_dropout
        )
        self.position_embedding = nn.Parameter(torch.zeros(max_length, embedding_dim))
        self.blocks = nn.ModuleList(_Block(embedding_dim, num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(embedding_dim)
        self.num_heads = num_heads

    @property
    def floats_per_entry(self) -> int:
        """See `HistoryRecommender.floats_per_entry`; vectors, and each head's attention."""
        by_head = 3 * self.window * self.num_heads
        return len(self.blocks) * (12 * self.item_embedding.embedding_dim + by_head)

    def encode(self, vectors: Tensor, present: Tensor) -> Tensor:
        """See `SequentialRecommender.encode`."""
        length = vectors.shape[1]
        earlier = torch.ones(length, length, device=vectors.device).tril()
        itself = torch.eye(length, device=vectors.device)  # or padding would attend to nothing
        seen = torch.maximum(earlier * present[:, None, :], itself)
        hidden = vectors + self.position_embedding * present[..., None]
        for block in self.blocks:
            hidden = block(hidden, (1 - seen) * _NEVER)
        return cast("Tensor", self.norm(hidden))


class _Block(nn.Module):
    """Attention, then a feed-forward layer, each on its normalised input and added to it."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)  # it would move all logits of a query alike
        self.wide, self.narrow = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Transform (n, length, dim); mask (n, length, length) is added to the logits."""
        normal = self.attention_norm(hidden)
        layers = (self.query, self.key, self.value)
        query, key, value = (self._heads(layer(normal)) for layer in layers)
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + mask[:, None]
        mixed = (logits.softmax(-1) @ value).transpose(1, 2).reshape(hidden.shape)
        hidden = hidden + mixed
        deep: Tensor = self.narrow(functional.relu(self.wide(self.norm(hidden))))
        return hidden + deep

    def _heads(self, rows: Tensor) -> Tensor:
        """(n, length, dim) as (n, num_heads, length, dim / num_heads)."""
        n, length, dim = rows.shape
        return rows.view(n, length, self.num_heads, dim // self.num_heads).transpose(1, 2)
