"""What summary.json says of every guarantee."""

from fedrec_flower.privacy.chance import Chance

OUTSIDE = (
    "evaluation metrics, training losses, numbers of clients and per-user tables of this folder, "
    "the choice of the round by validation, and hyper-parameters tried on the same data: these are "
    "computed on the clients' data as they are"
)


def about_noise(chance: Chance) -> str:
    """Where the noise came from."""
    if chance.seed is None:
        return "from the operating system's generator"
    return "seeded, so that the run repeats: whoever knows the seed can take it off"
