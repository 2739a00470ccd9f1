"""What local training must be like for its steps to tell of gradients."""

from fedrec_flower.errors import require
from fedrec_flower.strategies.plan import Plan


def require_sgd(plan: Plan, strategy: str) -> None:
    """Refuse an optimiser whose steps tell nothing of the gradients that clients saw.

    Raises:
        ConfigError: if clients do not train by SGD.
    """
    optimizer = plan.job["training"]["optimizer"]
    require(
        optimizer == "sgd",
        f"strategy={strategy} reads gradients off the clients' steps, which "
        f"training.optimizer={optimizer} rescales: choose sgd",
    )
