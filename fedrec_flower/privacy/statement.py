"""What summary.json says of every guarantee."""

from collections.abc import Sequence

from fedrec_flower.privacy.ledger import Spent
from fedrec_flower.privacy.noise import Chance
from fedrec_flower.privacy.requirements import Circumstances

_ALWAYS = (
    "per-user and per-client tables and files of the run folder (per_user.csv, "
    "recommendations.csv, clients.csv, clients/) and the figures made of them: they hold users' "
    "own data",
    "facts of the data in summary.json: the numbers of users, clients, test users and items, and "
    "split_sha256, by which a guess of all data can be checked",
    "facts of the data that the model is built with: the range of the ratings, attributes of users "
    "and items, and the largest number of interactions of a client, where it limits weights",
    "times, speed and memory in summary.json, and when a reply arrives: a client with more data "
    "computes longer",
    "how many replies were lost, by kind (rounds.csv, summary.json), bytes.total in summary.json, "
    "rounds_participated in clients.csv, and warnings in the log, also those of a node of training "
    "that is not finite: they follow from which clients were asked in a round, and from their data",
    "results of an attack that the run was put under: they are computed on the clients' data",
    "hyper-parameters that were tried on the same data, in this run or in others",
)
_METRICS = (
    "evaluation metrics and their standard errors in rounds.csv, summary.json and figures, also "
    "those of the best test round: exact values on held-out items, an instrument of the "
    "experimenter"
)
_SUMS = "the evaluation sums that each node sends: exact, of a single client where it hosts one"
_CHOICE = (
    "the choice of the released round by validation, and of the last round by patience: both "
    "follow from exact validation metrics"
)
_CATALOGUE = (
    "item ids, in model.safetensors and recommendations.csv, and the number of items: the "
    "catalogue is the items that interactions name, also those of a single user"
)
_SEED = (
    "an observer who knows the seed (randomness=seeded), as the server does: the noise and every "
    "draw of a client follow from it; and a round that is trained again after an interruption has "
    "the same noise, also where other clients answer"
)
_SEEDED = "seeded, so that the run repeats: whoever knows the seed can take it off"
_SETTINGS = (
    "a server that departs from the protocol: nodes take the settings of the mechanism from it, "
    "and answer as often as they are asked"
)


def outside(run: Circumstances, *, trusts_server: bool, before: Sequence[str] = ()) -> list[str]:
    """What a guarantee does not cover, one entry for each kind of value.

    Args:
        run: the run.
        trusts_server: whether the guarantee concerns only what the server releases; if not, it
            concerns the messages of the nodes too.
        before: what the guarantee of the model that the run started from leaves out.
    """
    published, sentences = run.published, list[str]()
    if published.seed:
        sentences.append(_SEED)
    if published.metrics:
        sentences += [_METRICS] if trusts_server else [_METRICS, _SUMS]
    if published.choice:
        sentences.append(_CHOICE)
    if published.catalogue:
        sentences.append(_CATALOGUE)
    sentences += _ALWAYS if trusts_server else [*_ALWAYS, _SETTINGS]
    return list(dict.fromkeys([*sentences, *before]))


def before_this_run(spent: Spent) -> dict[str, float]:
    """What of epsilon and delta the model that the run started from had spent."""
    if spent == Spent():
        return {}
    return {"epsilon_of_init_from": spent.epsilon, "delta_of_init_from": spent.delta}


def about_noise(chance: Chance) -> str:
    """Where the noise came from."""
    return _SEEDED if isinstance(chance.seed, int) else "from the operating system's generator"


def about_lasting(chance: Chance) -> str:
    """Where draws came from that a client repeats."""
    seeded = isinstance(chance.seed, int)
    return _SEEDED if seeded else "from a secret of each node, the same for every report"
