"""Mistakes a user can mend. The command line prints their message and no traceback."""


class FedrecError(Exception):
    """Base of every error whose message says, in one sentence, what to change."""


class ConfigError(FedrecError):
    """A value in the configuration is impossible."""


def require(possible: bool, complaint: str) -> None:  # noqa: FBT001  # reads like assert
    """Raise a ConfigError with the complaint unless a value is possible."""
    if not possible:
        raise ConfigError(complaint)


class DataError(FedrecError):
    """The data cannot be used as they are; the message names file, column and line if known."""


class TrainingError(FedrecError):
    """Training went wrong (a non-finite loss, a node that failed); names client and round."""
