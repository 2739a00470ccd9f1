"""The sentences of summary.json about privacy: what a guarantee covers, and what it does not.

Saved models are compared by `neighbours`, also across versions: those texts must not change.
"""

from collections.abc import Sequence

from fedrec_flower.privacy.ledger import InitialGuarantee
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.privacy.requirements import RunFacts, Unit

_ALWAYS_OUTSIDE = (
    "per-user and per-client tables and files of the run folder (per_user.csv, "
    "recommendations.csv, clients.csv, clients/) and the figures made from them: they contain "
    "users' own data",
    "facts of the data in summary.json: the numbers of users, clients, test users and items, and "
    "split_sha256, with which a guess of all data can be checked",
    "facts of the data that the model is built with: the range of the ratings, attributes of users "
    "and items, and the largest number of interactions of a client, if it limits weights",
    "times, speed and memory in summary.json, and the arrival time of a reply: a client with more "
    "data computes longer",
    "the number of lost replies, by kind (rounds.csv, summary.json), bytes.total in summary.json, "
    "rounds_participated in clients.csv, and warnings in the log, also warnings of a node about "
    "training that is not finite: they depend on which clients were sampled in a round, and on "
    "their data",
    "results of an attack on the run: they are computed from the clients' data",
    "hyper-parameters that were tried on the same data, in this run or in others",
)
_METRICS = (
    "evaluation metrics and their standard errors in rounds.csv, summary.json and figures, also "
    "those of the best test round: exact values on held-out items, measured for the experimenter"
)
_EVALUATION_SUMS = (
    "the evaluation sums that each node sends: exact values, of a single client if the node hosts "
    "one client"
)
_CHOICE = (
    "the choice of the released round by validation, and of the last round by patience: both "
    "depend on exact validation metrics"
)
_CATALOGUE = (
    "item ids, in model.safetensors and recommendations.csv, and the number of items: the "
    "catalogue is made from the items in interactions, also those of a single user"
)
_KNOWN_SEED = (
    "an observer who knows the seed (randomness=seeded), as the server does: the noise and every "
    "draw of a client are derived from it; and a round that is trained again after an "
    "interruption has the same noise, even if other clients reply"
)
_SEEDED_NOISE = "seeded, so that the run repeats: anyone who knows the seed can remove it"
_SERVER_SETTINGS = (
    "a server that deviates from the protocol: nodes take the settings of the mechanism from it, "
    "and reply as often as they are asked"
)
_PROTECTED_UPDATES = (
    "every update that a client sends, even if the server is not trusted, and all values that are "
    "computed from them; epsilon is that of the client sampled most often"
)
_PROTECTED_REPORTS = (
    "every report of a user, even if the server is not trusted, and all values that are computed "
    "from it"
)
_PROTECTED_PARAMETERS = (
    "the shared parameters of every round and all values that are computed from them; personal "
    "parameters never leave their client and are not released"
)


def central_scope(unit: Unit, *, poisson: bool) -> dict[str, str]:
    """The guarantee of central differential privacy in words.

    Args:
        unit: the protected unit.
        poisson: whether cohorts are drawn by Poisson sampling.
    """
    differ = "data are there or not" if poisson else "updates are there or are zero"
    return {
        "mechanism": "central differential privacy: the server is trusted",
        "neighbours": f"one {unit}'s {differ}",
        "covers": _PROTECTED_PARAMETERS,
    }


def local_scope(noise: str, unit: Unit) -> dict[str, str]:
    """The guarantee of local differential privacy in words.

    Args:
        noise: the distribution of the noise.
        unit: the protected unit.
    """
    return {
        "mechanism": f"local differential privacy, {noise} noise",
        "neighbours": f"one {unit}'s data are replaced by any other",
        "covers": _PROTECTED_UPDATES,
    }


def randomized_response_scope() -> dict[str, str]:
    """The guarantee of randomized response in words."""
    return {
        "mechanism": "local differential privacy, randomised response",
        "neighbours": "one user's history is replaced by any other",
        "accountant": "one report per user in a run, the same in retries and resumed runs",
        "covers": _PROTECTED_REPORTS,
    }


def pseudo_items_scope(*, seeded: bool) -> dict[str, str]:
    """The lack of a guarantee of pseudo items in words.

    Args:
        seeded: whether the sampled items are derived from the experiment's seed.
    """
    sentence = "anyone who can distinguish sampled items from the user's own"
    if seeded:
        sentence += ": anyone who knows the seed (randomness=seeded), as the server does, can"
    return {"mechanism": "pseudo items: hiding, not a guarantee", "does_not_cover": sentence}


def not_covered(run: RunFacts, *, trusts_server: bool, initial: Sequence[str] = ()) -> list[str]:
    """The values that a guarantee does not cover, one sentence for each kind.

    Args:
        run: facts of the run.
        trusts_server: whether the guarantee concerns only the values that the server releases; if
            not, it concerns the messages of the nodes too.
        initial: the sentences of the guarantee of the model that the run started from.
    """
    published = run.published
    sentences: list[str] = []
    if published.seed:
        sentences.append(_KNOWN_SEED)
    if published.metrics:
        sentences.append(_METRICS)
    if published.metrics and not trusts_server:
        sentences.append(_EVALUATION_SUMS)
    if published.choice:
        sentences.append(_CHOICE)
    if published.catalogue:
        sentences.append(_CATALOGUE)
    sentences += _ALWAYS_OUTSIDE
    if not trusts_server:
        sentences.append(_SERVER_SETTINGS)
    return list(dict.fromkeys([*sentences, *initial]))


def initial_guarantee(spent: InitialGuarantee) -> dict[str, float]:
    """The epsilon and delta of the model that the run started from."""
    if spent == InitialGuarantee():
        return {}
    return {"epsilon_of_init_from": spent.epsilon, "delta_of_init_from": spent.delta}


def noise_origin(noise_source: NoiseSource) -> str:
    """The origin of the noise."""
    seeded = isinstance(noise_source.seed, int)
    return _SEEDED_NOISE if seeded else "from the operating system's generator"


def persistent_noise_origin(noise_source: NoiseSource) -> str:
    """The origin of draws that a client repeats."""
    seeded = isinstance(noise_source.seed, int)
    return _SEEDED_NOISE if seeded else "from a secret of each node, the same for every report"
