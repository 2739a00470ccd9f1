"""Models that read histories: their scores by other computations, and the items they depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional
from torch.testing import assert_close

from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.autoencoder import Autoencoder
from fedrec_flower.models.fedrecon import FedRecon
from fedrec_flower.models.gru4rec import GRU4Rec
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.models.multvae import MultVAE
from fedrec_flower.models.ops.gru import gru_scan
from fedrec_flower.models.sasrec import SASRec
from fedrec_flower.models.sequential import SequentialRecommender
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.history_batches import HistoryBatches
from tests.helpers.one_round import NUM_ITEMS, READERS, Kind, make

DIM, WINDOW = 4, 5
# Seven items, one, none.
HISTORY = Columns(
    np.array([0, 7, 8, 8]),
    np.array([4, 1, 8, 0, 9, 2, 6, 3], np.int32),
    np.array([5, 1, 3, 4, 2, 1, 5, 4], np.float32),
)
SEQUENTIAL = pytest.mark.parametrize("kind", ["sasrec", "gru4rec"])


def drawn(model: HistoryRecommender) -> HistoryRecommender:
    """Fill every parameter with noise and set the history."""
    rng = np.random.default_rng(5)
    for value in model.parameters():
        value.data = torch.from_numpy(rng.normal(size=value.shape).astype(np.float32))
    model.set_history(HISTORY)
    return model


def sequential(kind: str, window: int = WINDOW) -> SequentialRecommender:
    arguments = (3, NUM_ITEMS, "ranking", DIM, window)
    if kind == "sasrec":
        model: SequentialRecommender = SASRec(*arguments, 2, 2, 0.1, 0.0)
    else:
        model = GRU4Rec(*arguments, 0.1, 0.0)
    drawn(model)
    return model


def states(model: SequentialRecommender, history: Columns) -> Tensor:
    """(n, d): states of the first user after 1, 2, ... n items."""
    whole = model.full_history(history, NUM_ITEMS)
    result = model.encode_history(whole).detach()
    last = int(whole.last[0])
    return result[last + 1 - int(np.diff(history.offsets)[0]) : last + 1]


def changed(place: int) -> Columns:
    """The history with another item at one position."""
    item = HISTORY.item.copy()
    item[place] = 20
    return replace(HISTORY, item=item)


# --- causality --------------------------------------------------------------------------------


@SEQUENTIAL
@pytest.mark.parametrize("place", range(7))
def test_state_depends_only_on_earlier_items_of_its_window(kind: str, place: int) -> None:
    model = sequential(kind)
    before, after = states(model, HISTORY), states(model, changed(place))
    differs = [bool((a != b).any()) for a, b in zip(before, after, strict=True)]
    window = [0, 1] if place < 2 else [2, 3, 4, 5, 6]  # seven items: two, then five
    assert differs == [state in window and state >= place for state in range(7)]


@SEQUENTIAL
def test_scores_depend_only_on_the_last_window(kind: str) -> None:
    model = sequential(kind)
    users = torch.arange(3)
    whole = model.score_all(users).detach()
    model.set_history(HISTORY.take(np.arange(3), WINDOW))
    assert_array_equal(model.score_all(users).detach(), whole)
    model.set_history(HISTORY.take(np.arange(3), WINDOW - 1))
    assert (model.score_all(users).detach()[0] != whole[0]).any()


@SEQUENTIAL
def test_scores_without_history_are_item_biases(kind: str) -> None:
    model = sequential(kind)
    scores = model.score_all(torch.tensor([2])).detach()
    assert_allclose(scores[0], model.item_bias.weight.detach()[:, 0], rtol=1e-6)


@pytest.mark.parametrize("kind", READERS)
def test_training_scores_without_dropout_equal_evaluation_scores(kind: Kind) -> None:
    model = make(kind, 3, "bce")
    assert isinstance(model, HistoryRecommender)
    drawn(model)
    user, item = HISTORY.users(), HISTORY.item.astype(np.int64)
    nobody, cohort = np.zeros(0, np.int64), np.array([0, 3])
    known, no_attributes = (nobody, nobody), np.zeros((3, 0), np.float32)
    layout = (cohort[:1], cohort[:1], cohort, np.array([0, 8]))
    one = Cohort(*layout, user, item, None, *known, no_attributes)
    entries = model.entries(one.history, NUM_ITEMS)
    mask = np.ones(len(entries.item), np.bool_)
    reading = HistoryBatches.lay_out(entries, one, entries.item, [mask], [None])
    users, items = np.repeat(np.arange(3), NUM_ITEMS), np.tile(np.arange(NUM_ITEMS), 3)
    context = np.diff(HISTORY.offsets)[users] if model.window else None
    read = reading.history(0, np.zeros_like(users), users, context, 1)
    history = replace(read, **{name: tensor[0] for name, tensor in read.tensors().items()})
    scores = model(torch.from_numpy(users), torch.from_numpy(items), history).detach()
    expected = model.score_all(torch.arange(3)).detach()
    assert_allclose(scores.view(3, -1), expected, rtol=1e-5, atol=1e-5)


# --- other computations -----------------------------------------------------------------------


def test_ranking_autoencoder_equals_mult_dae() -> None:
    model = drawn(Autoencoder(3, NUM_ITEMS, (1.0, 5.0), "ranking", DIM, 0.1, 0.0))
    v = {name: value.detach().numpy() for name, value in model.named_parameters()}
    for user in range(3):
        row = np.zeros(NUM_ITEMS)
        row[HISTORY.take(np.array([user])).item] = 1
        row /= max(np.sqrt(row.sum()), 1.0)
        hidden = np.tanh(np.sqrt(DIM) * row @ v["input_embedding.weight"] + v["hidden_bias"])
        expected = hidden @ v["item_embedding.weight"].T + v["item_bias.weight"][:, 0]
        assert_allclose(model.score_all(torch.tensor([user])).detach()[0], expected, rtol=1e-4)


def test_rating_autoencoder_equals_autorec_on_centred_ratings() -> None:
    model = drawn(Autoencoder(3, NUM_ITEMS, (1.0, 5.0), "rating", DIM, 0.1, 0.0))
    v = {name: value.detach().numpy() for name, value in model.named_parameters()}
    row = np.zeros(NUM_ITEMS)
    row[HISTORY.item[:7]] = np.array([2, -2, 0, 1, -1, -2, 2]) / np.sqrt(18)
    inside = np.sqrt(DIM) * row @ v["input_embedding.weight"] + v["hidden_bias"]
    hidden = 1 / (1 + np.exp(-inside))
    expected = 3 + hidden @ v["item_embedding.weight"].T + v["item_bias.weight"][:, 0]
    assert_allclose(model.score_all(torch.tensor([0])).detach()[0], expected, rtol=1e-4)


def test_sasrec_equals_causal_attention_over_items_and_positions() -> None:
    model = sequential("sasrec")
    v = dict(model.named_parameters())
    hidden = v["item_embedding.weight"][HISTORY.item[2:7]] + v["position_embedding"]
    for block in ("blocks.0", "blocks.1"):

        def linear(x: Tensor, name: str, block: str = block) -> Tensor:
            return functional.linear(x, v[f"{block}.{name}.weight"], v.get(f"{block}.{name}.bias"))

        def norm(x: Tensor, name: str, block: str = block) -> Tensor:
            scale, shift = v[f"{block}.{name}.weight"], v[f"{block}.{name}.bias"]
            return functional.layer_norm(x, [DIM], scale, shift)

        normal = norm(hidden, "attention_norm")
        query, key, value = (
            linear(normal, name).view(WINDOW, 2, 2).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + mixed.transpose(0, 1).reshape(WINDOW, DIM)
        wide = torch.relu(linear(norm(hidden, "norm"), "wide"))
        hidden = hidden + linear(wide, "narrow")
    expected = functional.layer_norm(hidden, [DIM], v["norm.weight"], v["norm.bias"]).detach()
    assert_allclose(states(model, HISTORY)[2:], expected, rtol=1e-4, atol=1e-5)


def test_gru4rec_equals_pytorchs_gru() -> None:
    model, cell = sequential("gru4rec"), nn.GRU(DIM, DIM)
    v = {name: value.detach() for name, value in model.named_parameters()}
    of_item, of_bias = (torch.split(v[f"from_item.{name}"], DIM) for name in ("weight", "bias"))
    gates = torch.split(v["gates_from_state.weight"], DIM)
    candidate = v["candidate_from_state.weight"]
    # PyTorch's order is (reset, update, candidate); its update gate is the share that stays.
    cell.weight_ih_l0.data = torch.cat([of_item[1], -of_item[0], of_item[2]])
    cell.bias_ih_l0.data = torch.cat([of_bias[1], -of_bias[0], of_bias[2]])
    cell.weight_hh_l0.data = torch.cat([gates[1], -gates[0], candidate])
    cell.bias_hh_l0.data = torch.cat([torch.zeros(2 * DIM), v["candidate_from_state.bias"]])
    items = np.sqrt(DIM) * v["item_embedding.weight"][HISTORY.item[2:7]]
    expected = cell(items[:, None])[0][:, 0].detach()
    assert_allclose(states(model, HISTORY)[2:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clients", [None, 3])
def test_gru_scan_has_the_gradients_of_its_unrolled_steps(clients: int | None) -> None:
    front, rng = () if clients is None else (clients,), torch.Generator().manual_seed(2)
    inputs, weight, bias = leaves = [
        torch.randn(*front, *shape, generator=rng).requires_grad_()
        for shape in ((2, WINDOW, 3 * DIM), (3 * DIM, DIM), (DIM,))
    ]
    present = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 1, 1]]).expand(*front, 2, WINDOW)

    def steps(inputs: Tensor, present: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        state, result = torch.zeros(2, DIM), []
        for read, here in zip(inputs.unbind(1), present.unbind(1), strict=True):
            of_state = torch.split(state @ weight.T, DIM, -1)
            update, reset, candidate = torch.split(read, DIM, -1)
            update, reset = (update + of_state[0]).sigmoid(), (reset + of_state[1]).sigmoid()
            candidate = (candidate + reset * (of_state[2] + bias)).tanh()
            state = state + here[:, None] * update * (candidate - state)
            result.append(state)
        return torch.stack(result, 1)

    slope = torch.randn(*front, 2, WINDOW, DIM, generator=rng)
    gradients = []
    for function in (gru_scan, steps):
        result = (function if clients is None else vmap(function))(inputs, present, weight, bias)
        gradients.append([result, *torch.autograd.grad((result * slope).sum(), leaves)])
    for ours, plain in zip(*gradients, strict=True):
        assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["ranking", "rating"])
def test_fedrecon_fits_users_by_gradient_descent_with_fixed_items(task: str) -> None:
    steps, rate = 3, 0.4
    model = FedRecon(3, NUM_ITEMS, (1.0, 5.0), task, DIM, 0.1, steps, rate, 2, 1.0)
    drawn(model)
    whole = model.full_history(HISTORY, NUM_ITEMS)
    result = model.encode_history(whole)
    assert not result.requires_grad
    for user in range(2):
        mine = (whole.user == user) & (whole.weight == 1)
        item, target = whole.item[mine], whole.target[mine]
        assert target.mean() > 0
        vector = torch.zeros(DIM, requires_grad=True)
        for _ in range(steps):
            bias = model.item_bias.weight[item, 0] + model.score_offset
            score = model.item_embedding.weight[item] @ vector + bias
            if task == "rating":
                loss = (score - target).square().mean() / 2
            else:
                loss = functional.binary_cross_entropy_with_logits(score, target)
            [gradient] = torch.autograd.grad(loss, [vector])
            bend = ((model.item_embedding.weight[item] @ gradient) ** 2).mean()
            bend = bend if task == "rating" else bend / 4
            length = rate * gradient @ gradient / bend
            vector = (vector - length * gradient).detach().requires_grad_()
        assert_allclose(result[user], vector.detach(), rtol=1e-4, atol=1e-5)
    assert not result[2].any()


@pytest.mark.parametrize("task", ["ranking", "rating"])
@pytest.mark.parametrize("rate", [0.5, 1.0, 1.99])
def test_every_reconstruction_step_lowers_the_loss(task: str, rate: float) -> None:
    losses = []
    for steps in range(1, 6):
        model = drawn(FedRecon(3, NUM_ITEMS, (1.0, 5.0), task, DIM, 0.1, steps, rate, 2, 1.0))
        history = model.full_history(HISTORY, NUM_ITEMS)
        bias = model.item_bias.weight[history.item, 0] + model.score_offset
        score = history.match(model.encode_history(history), model.item_embedding.weight) + bias
        if task == "rating":
            loss = (score - history.target).square()
        else:
            loss = functional.softplus(score) - score * history.target
        of_user = history.total_by_user(loss.detach() * history.weight)
        losses.append(of_user[:2, 0].numpy())
    assert (np.diff(np.stack(losses), axis=0) < 1e-5).all()


def test_multvae_samples_its_latent_and_adds_the_kl_divergence() -> None:
    model = MultVAE(1, 3, "ranking", 2, 0.1, input_dropout=0.5, beta=0.3)
    tables = {"mean": [[1.0, 0], [0, 2.0], [5, 5]], "spread": [[0.2, 0], [0, -0.4], [5, 5]]}
    with torch.no_grad():
        for name, rows in tables.items():
            model.get_parameter(f"{name}_embedding.weight").copy_(torch.tensor(rows))
        model.item_embedding.weight.copy_(torch.eye(3)[:, :2])
        model.item_bias.weight.zero_()
    model.set_history(Columns(np.array([0, 2]), np.array([0, 1], np.int32), None))
    # The input of two items has length one: the sum is scaled by sqrt(2 / 2).
    mean, spread = np.array([1.0, 2.0]), np.array([0.2, -0.4])
    assert_allclose(model.score_all(torch.arange(1)).detach()[0, :2], mean, rtol=1e-6)
    whole = model.full_history(Columns(np.array([0, 2]), np.array([0, 1], np.int32), None), 3)
    noisy = replace(whole, noise=torch.tensor([[1.0, -1.0]]), state=torch.zeros(1).long())
    drawn = mean + [1, -1] * np.exp(spread / 2)
    assert_allclose(model.encode_history(noisy).detach()[0], drawn, rtol=1e-6)
    apart = 0.5 * (np.exp(spread) + mean**2 - 1 - spread).sum()
    added = model.regularizer(torch.zeros(1).long(), torch.zeros(1).long(), noisy)
    assert added is not None
    assert_allclose(added.detach(), [0.3 * apart / (2 / 0.5)], rtol=1e-6)
