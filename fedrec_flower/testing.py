"""Contract tests for models: `check_model(MyModel, embedding_dim=8)` in a test of your package.

The checks train the model on a small random data set in this process. Each failure raises an
`AssertionError` with one sentence that names the broken rule.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch

from fedrec_flower.core.types import Float32Array, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import ClientData, Columns, starts
from fedrec_flower.models.abilities import HistoryBased, SideInformation
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.training.batches import ActiveRows
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.factory import choose_trainer
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import Trained

_NUM_USERS = 100
_NUM_ITEMS = 24
_NUM_TRAIN = 6  # training interactions of each user
_NUM_ATTRIBUTES = 3
_NUM_FEATURES = 5
_NUM_ROUNDS = 8  # of local training alone
_SEED = 11
# At chance, the mean percentile of held-out items is 0.5; its standard error is
# 0.289 / sqrt(100) = 0.029.
_CHANCE_TOLERANCE = 0.1

Task = Literal["ranking", "rating"]
Engine = Literal["sequential", "vectorized"]


def check_model(
    model_class: type[Recommender], *, task: Task = "ranking", **arguments: Any
) -> None:
    """Check that a model keeps the contract of `Recommender`.

    Args:
        model_class: the class. Its constructor may take `num_users`, `num_items`, `rating_range`,
            `task`, `item_features` and `num_attributes`, which are provided.
        task: "ranking", or "rating" to check predictions of ratings.
        arguments: the constructor's other arguments.

    Raises:
        AssertionError: names the broken rule.
    """
    check = _Check(model_class, task, arguments)
    check.initial_values()
    check.ownership()
    check.scores()
    local_run = _LocalRun(check, shares=False)
    if issubclass(model_class, ClosedFormRecommender):
        check.statistics()
    else:
        check.trainers_agree()
        check.training_lowers_the_loss(local_run)
    if task == "ranking":
        check.no_leak(local_run)


@dataclass(frozen=True)
class _Check:
    """The checks of one model.

    Attributes:
        model_class: the model's class.
        task: "ranking" or "rating".
        arguments: the constructor's arguments that are not provided.
    """

    model_class: type[Recommender]
    task: Task
    arguments: dict[str, Any]

    def make(self, num_users: int = 1, num_items: int = _NUM_ITEMS) -> Recommender:
        """A model with its own declared sizes, without initial values."""
        provided = {
            "num_users": num_users,
            "num_items": num_items,
            "rating_range": (1.0, 5.0) if self.task == "rating" else None,
            "task": self.task,
            "item_features": _random((num_items, _NUM_FEATURES), "features"),
            "num_attributes": _NUM_ATTRIBUTES,
        }
        accepted = inspect.signature(self.model_class).parameters
        provided = {name: value for name, value in provided.items() if name in accepted}
        return self.model_class(**provided, **self.arguments)

    def loaded(self, num_users: int) -> Recommender:
        """A model with initial values and the data of some users."""
        model = self.make(num_users)
        names = [name for name, _ in model.named_parameters()]
        model.load(model.initial(names, np.random.default_rng(_SEED)))
        _set_inputs(model, _joined(_clients()[:num_users]))
        return model

    def initial_values(self) -> None:
        """Initial values are finite, float32, and follow from the seed alone."""
        drawn = []
        with torch.random.fork_rng():
            for torch_seed in (1, 2):
                torch.manual_seed(torch_seed)
                model = self.make(num_users=3)
                names = [name for name, _ in model.named_parameters()]
                try:
                    drawn.append(model.initial(names, np.random.default_rng(_SEED)))
                except ValueError as error:
                    raise AssertionError(str(error)) from error
        for name, value in drawn[0].items():
            shape = tuple(model.get_parameter(name).shape)
            _require(
                value.shape == shape and value.dtype == np.float32,
                f"the initial value of {name} is {value.dtype} {value.shape} and must be float32 "
                f"{shape}",
            )
            _require(bool(np.isfinite(value).all()), f"the initial value of {name} is not finite")
            _require(
                np.array_equal(value, drawn[1][name]),
                f"the initial value of {name} depends on PyTorch's global random state: draw it "
                "from the generator that `init` receives",
            )

    def ownership(self) -> None:
        """Parameters that grow with the users or items are declared as such."""
        sizes = [self.make(3, 7), self.make(4, 7), self.make(3, 8)]
        small, more_users, more_items = (_shapes(model) for model in sizes)
        model = sizes[0]
        for name, shape in small.items():
            _require(
                (more_users[name] != shape) == (name in model.user_rows),
                f"{name} has a row per user and is not declared so, or the reverse: the server "
                "would receive it; use UserEmbedding or PerUser",
            )
            _require(
                (more_items[name] != shape) == (name in model.item_rows),
                f"{name} has a row per item and is not declared so, or the reverse: use "
                "ItemEmbedding or PerItem",
            )

    def scores(self) -> None:
        """`forward` and `score_all` give the same finite scores, of the promised shapes."""
        num_users = 4
        model = self.loaded(num_users)
        users, items = torch.arange(num_users), torch.arange(_NUM_ITEMS)
        with torch.no_grad():
            pairs = model(users.repeat_interleave(_NUM_ITEMS), items.repeat(num_users))
            table = model.score_all(users)
            reverse = model.score_all(users.flip(0))
        _require(
            pairs.shape == (num_users * _NUM_ITEMS,) and pairs.dtype == torch.float32,
            f"forward returned {pairs.dtype} {tuple(pairs.shape)} for {num_users * _NUM_ITEMS} "
            "pairs: it must return one float32 score per pair",
        )
        _require(
            table.shape == (num_users, _NUM_ITEMS),
            f"score_all returned shape {tuple(table.shape)} and must return one row per user and "
            f"one column per item, {(num_users, _NUM_ITEMS)}",
        )
        _require(bool(torch.isfinite(table).all()), "score_all returned a score that is not finite")
        _require(
            torch.allclose(table, pairs.view_as(table), rtol=1e-4, atol=1e-5),
            "score_all differs from forward on the same pairs",
        )
        _require(
            torch.allclose(reverse.flip(0), table, rtol=1e-4, atol=1e-5),
            "score_all does not return the rows in the order of the users that it is given",
        )

    def statistics(self) -> None:
        """Statistics add up over users, and the solution has the shapes of the parameters."""
        model = self.make()
        if not isinstance(model, ClosedFormRecommender):
            raise TypeError(f"{self.model_class.__name__} is no ClosedFormRecommender")
        parameters = model.initial(model.shared_names(), np.random.default_rng(_SEED))
        history = _joined(_clients()[:20]).train
        parts = [history.slice(0, 7), history.slice(7, 20)]
        total = model.statistics(history, parameters)
        halves = [model.statistics(part, parameters) for part in parts]
        _require(
            tuple(total) == model.statistic_names,
            f"statistics returned {list(total)} and statistic_names declares "
            f"{list(model.statistic_names)}",
        )
        for name, value in total.items():
            _require(
                np.allclose(halves[0][name] + halves[1][name], value, rtol=1e-9, atol=1e-9),
                f"the statistic {name} of all users is not the sum over the users",
            )
        for name, solution in model.solve(total, parameters).items():
            shape = parameters[name].shape
            _require(
                solution.shape == shape and bool(np.isfinite(solution).all()),
                f"solve returned {name} with shape {solution.shape}: it must be finite, {shape}",
            )

    def trainers_agree(self) -> None:
        """Sequential and vectorized training agree; personal parameters are in no update."""
        clients = _clients()[:5]
        results: list[dict[str, Float32Array]] = []
        for engine in get_args(Engine):
            run = _LocalRun(self, shares=True)
            trained = run.train(clients, self.training(engine, local_epochs=2))
            results.append(_by_client(run.model, trained))
            self._check_updates(run.model, [part.updates for part in trained])
        _require(results[0].keys() == results[1].keys(), "the trainers train different parameters")
        for name, value in results[0].items():
            _require(
                np.allclose(value, results[1][name], rtol=1e-3, atol=1e-5),
                f"vectorized and sequential training differ in {name} (client/parameter): "
                "forward must treat each pair independently of the other pairs of the batch",
            )

    def _check_updates(self, model: Recommender, updates: Sequence[Updates]) -> None:
        local = {*model.personal_names()} | model.frozen
        for part in updates:
            for name, value in part.tensors.items():
                _require(name not in local, f"{name} stays on the client, but an update holds it")
                _require(bool(np.isfinite(value).all()), f"the update of {name} is not finite")

    def training_lowers_the_loss(self, run: "_LocalRun") -> None:
        """Repeated local training lowers the mean training loss."""
        losses = [run.train_round() for _ in range(_NUM_ROUNDS)]
        _require(bool(np.isfinite(losses).all()), f"a training loss is not finite: {losses}")
        _require(
            losses[-1] < losses[0],
            f"training does not lower the loss: {losses[0]:.4f} before, {losses[-1]:.4f} after "
            f"{_NUM_ROUNDS} rounds of local training",
        )

    def no_leak(self, run: "_LocalRun") -> None:
        """Held-out items rank at chance after every client trained alone."""
        percentile = float(np.mean([run.held_out_percentile(data) for data in run.clients]))
        _require(
            abs(percentile - 0.5) < _CHANCE_TOLERANCE,
            f"held-out items rank at percentile {percentile:.2f} after local training alone, where "
            "chance is 0.50: the model reads data that its users do not have in training",
        )

    def training(
        self, engine: Literal["sequential", "vectorized"], **changes: Any
    ) -> LocalTraining:
        """Settings of local training."""
        training = LocalTraining(
            engine=engine,
            device="cpu",
            memory_budget_mb=64,
            loss="bce" if self.task == "ranking" else "mse",
            optimizer="sgd",
            learning_rate=0.1,
            dense_learning_rate=0.05,
            weight_decay=0.0,
            local_epochs=1,
            batch_size=4,
            num_negatives=2,
        )
        return replace(training, **changes)


class _LocalRun:
    """Clients that train in rounds and keep their parameters between the rounds.

    Args:
        check: gives the model and the settings.
        shares: True if shared parameters are given to the clients and collected as updates; False
            if every client trains a copy of the whole model alone.
    """

    def __init__(self, check: _Check, *, shares: bool) -> None:
        self._check = check
        self.model = check.make()
        self.clients = _clients()
        shared_names = self.model.shared_names()
        initial = self.model.initial(shared_names, np.random.default_rng(_SEED))
        self._shared = initial if shares else {}
        self._state: dict[int, Tensors] = {}
        personal_names = self.model.personal_names()
        for data in self.clients:
            rng = np.random.default_rng((_SEED, data.client))
            values = self.model.initial(personal_names, rng)
            if not shares:
                values |= {name: value.copy() for name, value in initial.items()}
            self._state[data.client] = values
        self._round = 0

    def train(self, clients: Sequence[ClientData], training: LocalTraining) -> list[Trained]:
        """Train some clients and store their personal parameters."""
        self._round += 1
        trainer = choose_trainer(
            self.model,
            training,
            task=self._check.task,
            negatives="honest",
            num_items=_NUM_ITEMS,
            seed=_SEED,
        )
        trained = list(trainer.train(clients, Versions.single(self._shared), self, self._round))
        for part in trained:
            self._store(part)
        return trained

    def train_round(self) -> float:
        """Train all clients; returns the mean loss."""
        training = self._check.training(
            "vectorized",
            optimizer="adam",
            learning_rate=0.05,
            dense_learning_rate=0.02,
            batch_size=None,
            local_epochs=2,
        )
        trained = self.train(self.clients, training)
        return float(np.mean(np.concatenate([part.loss for part in trained])))

    def gather(self, cohort: Cohort, touched: ActiveRows) -> Tensors:
        """The stored parameters, laid out as `PersonalParameters.gather`."""
        states = [self._state[int(client)] for client in cohort.clients]
        rows = np.split(touched.rows, touched.offsets[1:-1])
        gathered: Tensors = {}
        for name in states[0]:
            values = [state[name] for state in states]
            if name in self.model.item_rows:
                pairs = zip(values, rows, strict=True)
                gathered[name] = np.concatenate([table[own] for table, own in pairs])
            elif name in self.model.user_rows:
                gathered[name] = np.concatenate(values)
            else:
                gathered[name] = np.stack(values)
        return gathered

    def _store(self, trained: Trained) -> None:
        for place, client in enumerate(trained.cohort.clients.tolist()):
            rows = slice(*trained.touched.offsets[place : place + 2])
            for name, value in trained.personal.items():
                if name in self.model.item_rows:
                    self._state[client][name][trained.touched.rows[rows]] = value[rows]
                elif name in self.model.user_rows:
                    users = slice(*trained.cohort.user_offsets[place : place + 2])
                    self._state[client][name] = value[users].copy()
                else:
                    self._state[client][name] = value[place].copy()

    def held_out_percentile(self, data: ClientData) -> float:
        """Share of the unseen items that score below the held-out item; ties count half."""
        values = {name: value.copy() for name, value in self._state[data.client].items()}
        if isinstance(self.model, ClosedFormRecommender):
            shared = {name: values[name] for name in self.model.shared_names()}
            values |= self.model.solve_alone(data.train, shared, num_rounds=1)
        self.model.load(values)
        _set_inputs(self.model, data)
        with torch.no_grad():
            scores: Float32Array = self.model.score_all(torch.arange(1)).numpy()[0]
        held_out = int(data.test.item[0])
        others = np.setdiff1d(np.arange(_NUM_ITEMS), [*data.train.item, held_out])
        below = np.mean(scores[others] < scores[held_out])
        ties = np.mean(scores[others] == scores[held_out])
        return float(below + ties / 2)


def _require(condition: bool, message: str) -> None:  # noqa: FBT001  # as an assert statement
    if not condition:
        raise AssertionError(message)


def _shapes(model: Recommender) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def _random(shape: tuple[int, ...], role: str) -> Float32Array:
    rng = np.random.default_rng([_SEED, *role.encode()])
    return rng.normal(size=shape).astype(np.float32)


def _clients() -> list[ClientData]:
    """Clients of one user each, whose training and held-out items are drawn at random."""
    rng = np.random.default_rng(_SEED)
    attributes = _random((_NUM_USERS, _NUM_ATTRIBUTES), "attributes")
    clients = []
    for client in range(_NUM_USERS):
        items = rng.permutation(_NUM_ITEMS)[: _NUM_TRAIN + 1].astype(np.int32)
        ratings = rng.integers(1, 6, _NUM_TRAIN + 1).astype(np.float32)
        clients.append(
            ClientData(
                client=client,
                num_clients=1,
                first=client,
                user_codes=np.array([client], np.int32),
                train=_columns([items[:_NUM_TRAIN]], ratings[:_NUM_TRAIN]),
                validation=_columns([items[:0]], ratings[:0]),
                test=_columns([items[_NUM_TRAIN:]], ratings[_NUM_TRAIN:]),
                attributes=attributes[client : client + 1],
            )
        )
    return clients


def _joined(clients: Sequence[ClientData]) -> ClientData:
    """Several clients as one client that holds their users."""

    def joined(parts: Sequence[Columns]) -> Columns:
        rating = np.concatenate([part.rating for part in parts if part.rating is not None])
        return _columns([part.item for part in parts], rating)

    return replace(
        clients[0],
        num_clients=len(clients),
        user_codes=np.concatenate([data.user_codes for data in clients]),
        train=joined([data.train for data in clients]),
        validation=joined([data.validation for data in clients]),
        test=joined([data.test for data in clients]),
        attributes=np.concatenate([data.attributes for data in clients]),
    )


def _columns(items: Sequence[Any], rating: Float32Array) -> Columns:
    return Columns(starts([len(row) for row in items]), np.concatenate(items), rating)


def _set_inputs(model: Recommender, data: ClientData) -> None:
    if isinstance(model, SideInformation):
        model.load(model.side_information(data.attributes, data.train, None))
    if isinstance(model, HistoryBased):
        model.set_history(data.train)


def _by_client(model: Recommender, trained: Sequence[Trained]) -> dict[str, Float32Array]:
    """Loss, updates and personal parameters of each client, by names "client/parameter"."""
    results: dict[str, Float32Array] = {}
    for part in trained:
        for place, client in enumerate(part.cohort.clients.tolist()):
            results[f"{client}/loss"] = part.loss[place : place + 1].astype(np.float32)
            rows = slice(*part.touched.offsets[place : place + 2])
            users = slice(*part.cohort.user_offsets[place : place + 2])
            for name, value in {**part.updates.tensors, **part.personal}.items():
                if name in model.item_rows:
                    results[f"{client}/{name}"] = value[rows]
                elif name in model.user_rows:
                    results[f"{client}/{name}"] = value[users]
                else:
                    results[f"{client}/{name}"] = value[place]
    return results
