"""Rewrites messages of Hydra and the operating system as one sentence with a fix."""

import re
from collections.abc import Callable, Iterable

from fedrec_flower.experiment.composition import unknown_option

Known = Callable[[], Iterable[str]]

_NOISE = ("full_key", "object_type", "Config search path", "provider=")
_EXTRAS = {"hydra/sweeper=optuna": "search", "hydra/launcher=joblib": "parallel"}
_KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def reword(message: str, cause: str, known: Known) -> str:
    """Rewrite a message of Hydra or OmegaConf as one sentence.

    Args:
        message: the message of the exception, often of several lines.
        cause: the message of the exception that caused it, "" if there is none.
        known: returns every option, such as "model.embedding_dim"; called only if needed.

    Returns:
        The problem and the fix, without a full stop.
    """
    for pattern, sentence in _SENTENCES:
        if match := re.search(pattern, message, re.DOTALL):
            return sentence(match, cause, known)
    lines = [line.strip() for line in [*message.splitlines(), cause.partition("\n")[0]]]
    return " ".join(line for line in lines if line and not line.startswith(_NOISE))


def unreadable(override: str, reason: str) -> str:
    """Message for an argument that is not of the form `name=value`.

    Args:
        override: as the user wrote it.
        reason: the message of the parser.
    """
    lines = [line for line in reason.splitlines() if line and not line.startswith("See ")]
    return (
        f"{override} cannot be read ({lines[-1]}): write name=value, in quotes where the shell "
        "would change it"
    )


def unusable(error: OSError) -> str:
    """Message for a file or folder that the operating system refuses."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return (
            f"{error.filename} is a file where a folder is needed: set output_dir= or "
            "dataset.cache_dir= to a folder"
        )
    where = f"{error.filename} " if error.filename else "a file "
    return (
        f"{where}cannot be used ({error.strerror or error}): free space, or set output_dir= or "
        "dataset.cache_dir= to a folder you may write to"
    )


def _unknown_choice(match: re.Match[str], cause: str, known: Known) -> str:
    del cause, known
    choice = f"{match['group']}={match['name']}"
    if choice in _EXTRAS:
        return f"{choice} is not installed: pip install 'fedrec-flower[{_EXTRAS[choice]}]'"
    names = match["choices"].split() if match["choices"] else []
    fix = f"choose from {', '.join(names)}" if names else "there is nothing to choose from"
    return f"{choice} does not exist: {fix}"


def _wrong_kind(match: re.Match[str], cause: str, known: Known) -> str:
    del known
    wanted = re.search(r"could not be converted to (\w+)", cause)
    fix = f"give {_KINDS.get(wanted[1], wanted[1])}" if wanted else "it needs a value"
    return f"{match['override']} is of a wrong kind: {fix}"


def _deleted(match: re.Match[str], cause: str, known: Known) -> str:
    """Message for an interpolation whose option was deleted with `~option`."""
    del cause, known
    present = match["keys"].split(", ")
    asked = re.findall(r"\$\{(\w+)\}", match["asked"])
    missing = [key for key in asked if key not in present]
    option = missing[0] if missing else match["asked"]
    return f"{option} has no value: add {option}="


_SENTENCES: tuple[tuple[str, Callable[[re.Match[str], str, Known], str]], ...] = (
    (
        r"Could not override 'server_optimizer[\w@]*'",
        lambda _, __, ___: (
            "server_optimizer is a part of some strategies, such as scaffold: write "
            "server_optimizer@strategy=fedavg with one of these"
        ),
    ),
    (
        r"Could not override '(?P<option>[\w.]+)'",
        lambda match, _, known: unknown_option(match["option"], known()),
    ),
    (
        r"Could not find '(?P<group>[^']+)/(?P<name>[^'/]+)'"
        r"(.*Available options in '[^']+':(?P<choices>.*?)\n\w)?",
        _unknown_choice,
    ),
    (r"Error merging override (?P<override>.+)$", _wrong_kind),
    (
        r"Ambiguous value for argument '(?P<name>[^=]+)=(?P<values>[^']+)'",
        lambda match, *_: (
            f"{match['name']}={match['values']} holds several values: add --multirun to run each, "
            f"or write '{match['name']}=[{match['values']}]' for a list"
        ),
    ),
    (
        r"Missing mandatory value: .*full_key: (?P<option>\S+)",
        lambda match, *_: f"{match['option']} has no value: add {match['option']}=",
    ),
    (
        r"Error resolving interpolation '(?P<asked>[^']+)', possible interpolation keys: "
        r"(?P<keys>[\w, ]+)",
        _deleted,
    ),
    (
        r"Interpolation key '(?P<key>[^']+)' not found.*full_key: (?P<option>\S+)",
        lambda match, *_: f"{match['option']} refers to {match['key']}, which does not exist",
    ),
    (
        r"Multiple values for (?P<group>[\w/]+)\.",
        lambda match, *_: f"{match['group']} is chosen already: write it without the +",
    ),
    (
        r"Cannot find primary config '(?P<name>[^']+)'",
        lambda match, *_: (
            f"there is no {match['name']}.yaml there: give --config-path the folder of a run"
        ),
    ),
    (
        r"config directory '(?P<folder>[^']+)' exists",
        lambda match, *_: (
            f"{match['folder']} is not a folder: give --config-path the folder of a run"
        ),
    ),
)
