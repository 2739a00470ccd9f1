"""Errors that a user can fix. The command line prints their message without a traceback."""


class FedrecError(Exception):
    """Base of every error whose message states, in one sentence, what to change."""


class ConfigError(FedrecError):
    """A value in the configuration is not possible."""


def require(possible: bool, complaint: str) -> None:  # noqa: FBT001  # reads like assert
    """Raise a ConfigError with the message `complaint` unless `possible` is true."""
    if not possible:
        raise ConfigError(complaint)


class DataError(FedrecError):
    """The data cannot be used; the message names the file, column and line if they are known."""


class TrainingError(FedrecError):
    """Training failed (a non-finite loss or a failed node); the message names client and round."""
