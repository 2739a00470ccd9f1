"""One round of several clients by any engine, and what each of them learnt from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.types import Tensors
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.autoencoder import Autoencoder
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.fedrecon import FedRecon
from fedrec_flower.models.gru4rec import GRU4Rec
from fedrec_flower.models.hybrid import Hybrid
from fedrec_flower.models.lightgcn import LightGCN
from fedrec_flower.models.mf import MF
from fedrec_flower.models.multvae import MultVAE
from fedrec_flower.models.ncf import NCF
from fedrec_flower.models.sasrec import SASRec
from fedrec_flower.models.two_tower import TwoTower
from fedrec_flower.training.batches import ActiveRows
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.factory import choose_trainer
from fedrec_flower.training.gradient_correction import GradientCorrection, NoCorrection
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import Trained
from tests.helpers.plain_training import train_plainly

NUM_ITEMS, SEED, ROUND = 25, 4, 3
TRAINING = LocalTraining(
    engine="vectorized",
    device="cpu",
    memory_budget_mb=64,
    loss="bce",
    optimizer="sgd",
    learning_rate=0.3,
    dense_learning_rate=0.05,
    weight_decay=0.0,
    local_epochs=2,
    batch_size=7,
    num_negatives=3,
)

Kind = Literal[
    "mf",
    "gmf",
    "neumf",
    "autoencoder",
    "sasrec",
    "gru4rec",
    "fedrecon",
    "lightgcn",
    "two_tower",
    "hybrid",
    "multvae",
]
READERS: list[Kind] = [  # of histories
    "autoencoder",
    "multvae",
    "sasrec",
    "gru4rec",
    "fedrecon",
    "lightgcn",
]
TOWERS: list[Kind] = ["two_tower", "hybrid"]  # over features and attributes
KNOWN = (np.random.default_rng(7).random((NUM_ITEMS, 3), np.float32), 2)  # and two attributes
Loss = Literal["bce", "bpr", "softmax", "mse"]
Table = NDArray[np.float32]


def make(kind: Kind, num_users: int, loss: Loss) -> Recommender:
    """A small model; "mse" makes it one that rates."""
    ranking = (num_users, NUM_ITEMS, "ranking")
    either = (num_users, NUM_ITEMS, (1.0, 5.0), "rating" if loss == "mse" else "ranking")
    makers: dict[Kind, Callable[[], Recommender]] = {
        "mf": lambda: MF(*either, embedding_dim=4, init_std=0.1),
        "gmf": lambda: NCF(*either, "gmf", 4, [8, 4], init_std=0.1),
        "neumf": lambda: NCF(*either, "neumf", 4, [8, 4], init_std=0.1),
        "autoencoder": lambda: Autoencoder(*either, 4, 0.1, input_dropout=0.4),
        "multvae": lambda: MultVAE(*ranking, 4, 0.1, 0.4, beta=0.7),
        "sasrec": lambda: SASRec(*ranking, 4, 3, 2, 2, 0.1, input_dropout=0.2),
        "gru4rec": lambda: GRU4Rec(*ranking, 4, 3, 0.1, input_dropout=0.2),
        "fedrecon": lambda: FedRecon(*either, 4, 0.5, 3, 0.5, 2, 0.6),
        "lightgcn": lambda: LightGCN(*either, 4, 0.1, num_layers=2, input_dropout=0.3),
        "two_tower": lambda: TwoTower(num_users, "ranking", *KNOWN, 4, [5], 0.5),
        "hybrid": lambda: Hybrid(*ranking, *KNOWN, 4, [5], 0.5, init_std=0.1),
    }
    return makers[kind]()


def value(model: Recommender, name: str) -> Table:
    """A parameter as an array."""
    array: Table = model.get_parameter(name).detach().numpy()
    return array


@dataclass(frozen=True)
class Learnt:
    """What one client's round led to, at full shapes.

    Attributes:
        weight: of its update.
        rows: the item rows it touched.
        change: of each shared parameter.
        personal: new value of each personal parameter.
        loss: mean training loss.
    """

    weight: float
    rows: NDArray[np.int64]
    change: Tensors
    personal: Tensors
    loss: float

    def equals(self, other: "Learnt") -> bool:
        """Whether two clients learnt the same, to the bit."""
        pairs = [
            *((self.change[name], other.change[name]) for name in self.change),
            *((self.personal[name], other.personal[name]) for name in self.personal),
        ]
        return self.loss == other.loss and all(np.array_equal(*pair) for pair in pairs)


class Round:
    """An engine, global parameters and every client's own, before the round.

    Args:
        kind: the model.
        shares: whether shared parameters travel; if not, every client keeps a copy.
        maml_step: as of `LocalTrainer`.
        guide: says what is added to gradients.
        choices: changes to the training settings.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        shares: bool = True,
        maml_step: float | None = None,
        guide: GradientCorrection | None = None,
        **choices: Any,
    ) -> None:
        self.guide = guide or NoCorrection()
        self.kind, self.training = kind, replace(TRAINING, **choices)
        self.model = make(kind, 1, self.training.loss)
        names = self.model.shared_names()
        self.everything = self.model.initial(names, np.random.default_rng(1))
        self.shared = self.everything if shares else {}
        self.engine = choose_trainer(
            self.model,
            self.training,
            maml_step,
            task="rating" if self.training.loss == "mse" else "ranking",
            negatives="honest",
            num_items=NUM_ITEMS,
            seed=SEED,
        )
        self.num_users: dict[int, int] = {}

    def personal(self, client: int) -> Tensors:
        """A client's personal parameters before the round."""
        whole = make(self.kind, self.num_users[client], self.training.loss)
        own = whole.initial(whole.personal_names(), np.random.default_rng(client + 100))
        return own if self.shared else own | {n: v.copy() for n, v in self.everything.items()}

    def gather(self, cohort: Cohort, touched: ActiveRows) -> Tensors:
        """See `PersonalParameters.gather`."""
        clients = [self.personal(int(client)) for client in cohort.clients]
        gathered: Tensors = {}
        for name in clients[0]:
            each = [own[name] for own in clients]
            if name in self.model.item_rows:
                rows = np.split(touched.rows, touched.offsets[1:-1])
                each = [table[own] for table, own in zip(each, rows, strict=True)]
            tables = self.model.user_rows | self.model.item_rows
            gathered[name] = np.concatenate(each) if name in tables else np.stack(each)
        return gathered

    def train(self, members: Sequence[ClientData], round_: int = ROUND) -> dict[int, Learnt]:
        """Train; gives what each client learnt."""
        self.num_users |= {data.client: data.num_users for data in members}
        found: dict[int, Learnt] = {}
        given = Versions.single(self.shared)
        for trained in self.engine.train(members, given, self, round_, self.guide):
            assert_array_equal(trained.updates.clients, trained.cohort.clients)
            if self.model.item_rows & self.shared.keys():
                assert_array_equal(trained.updates.rows, trained.touched.rows)
            else:  # nobody need know
                assert len(trained.updates.rows) == 0
            for place, client in enumerate(trained.updates.clients.tolist()):
                found[client] = self._learnt(trained, place)
        return found

    def _learnt(self, trained: Trained, place: int) -> Learnt:
        updates = trained.updates
        rows = updates.rows[slice(*updates.offsets[place : place + 2])]
        before = self.personal(int(updates.clients[place]))
        nothing = {name: np.zeros_like(table) for name, table in self.everything.items()}
        return Learnt(
            weight=float(updates.weights[place]),
            rows=rows,
            change={n: self._own(trained, place, n, updates.tensors, nothing) for n in self.shared},
            personal={n: self._own(trained, place, n, trained.personal, before) for n in before},
            loss=float(trained.loss[place]),
        )

    def _own(
        self, trained: Trained, place: int, name: str, tensors: Tensors, rest: Tensors
    ) -> Table:
        """One client's part of what an engine gives, at its full shape."""
        if name in self.model.user_rows:
            return tensors[name][slice(*trained.cohort.user_offsets[place : place + 2])]
        if name not in self.model.item_rows:
            own: Table = tensors[name][place]
            return own
        rows = slice(*trained.touched.offsets[place : place + 2])
        whole = rest[name].copy()
        whole[trained.touched.rows[rows]] = tensors[name][rows]
        return whole

    def plainly(self, data: ClientData) -> tuple[Recommender, float]:
        """The same round of one client in a plain loop over whole tables."""
        model = make(self.kind, data.num_users, self.training.loss)
        self.num_users[data.client] = data.num_users
        begun = self.everything | self.personal(data.client)
        model.load({name: table.copy() for name, table in begun.items()})
        loss = train_plainly(model, data, self.training, ROUND, num_items=NUM_ITEMS, seed=SEED)
        return model, loss
