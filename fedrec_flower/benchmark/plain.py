"""Baseline of the benchmark: federated averaging as a plain PyTorch loop."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fedrec_flower.core.random import generator
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.models.base import Recommender


class PlainLoop:
    """Straightforward federated averaging: a loop over clients, with full tables.

    Args:
        model: the model; its parameters are overwritten for every client.
        data: the prepared data.
        parameters: initial shared parameters.
    """

    def __init__(
        self, model: Recommender, data: Prepared, parameters: list[NDArray[np.float32]]
    ) -> None:
        self.data = data
        self.model = model
        self.names = model.shared_names()
        self.shared = [torch.from_numpy(value.copy()) for value in parameters]
        width = model.get_parameter("user_embedding.weight").shape[1]
        self.users = torch.randn(data.num_clients, 1, width) * 0.1

    def round(self, clients: list[int], round_: int) -> None:
        """Run one round of weighted averaging."""
        total = [torch.zeros_like(value) for value in self.shared]
        weight = 0
        for client in clients:
            count = self._train(client, round_)
            for name, summed, value in zip(self.names, total, self.shared, strict=True):
                summed.add_(self.model.get_parameter(name).data - value, alpha=count)
            weight += count
        for summed, value in zip(total, self.shared, strict=True):
            value.add_(summed / weight)

    def _train(self, client: int, round_: int) -> int:
        """Copy all parameters, train one client for one epoch; return its number of positives."""
        for name, value in zip(self.names, self.shared, strict=True):
            self.model.get_parameter(name).data = value.clone()
        self.model.get_parameter("user_embedding.weight").data = self.users[client]
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        positives = self.data.client(client).train.item.astype(np.int64)
        rng = generator(1, "benchmark-negatives", round_, client)
        items = np.concatenate(
            [positives, rng.integers(0, self.data.num_items, 4 * len(positives))]
        )
        order = torch.from_numpy(rng.permutation(len(items)))
        item = torch.from_numpy(items)[order]
        label = (order < len(positives)).float()
        for start in range(0, len(item), 128):
            batch = item[start : start + 128]
            optimizer.zero_grad()
            scores = self.model(torch.zeros_like(batch), batch)
            loss = functional.binary_cross_entropy_with_logits(scores, label[start : start + 128])
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            optimizer.step()
        return len(positives)
