"""What Hydra and the system say about a mistake, said again in one sentence with its mend."""

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

Known = Callable[[], Iterable[str]]

_NOISE = ("full_key", "object_type", "Config search path", "provider=")
_KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def reword(said: str, cause: str, known: Known) -> str:
    """One sentence for what Hydra or OmegaConf says in several lines.

    Args:
        said: the message of the exception.
        cause: the message of the exception behind it, "" if there is none.
        known: gives every option there is, such as "model.embedding_dim"; called if needed.

    Returns:
        What is wrong and what to change, without a full stop.
    """
    for pattern, sentence in _SENTENCES:
        if found := re.search(pattern, said, re.DOTALL):
            return sentence(found, cause, known)
    lines = [line.strip() for line in [*said.splitlines(), cause.partition("\n")[0]]]
    return " ".join(line for line in lines if line and not line.startswith(_NOISE))


def unknown_option(option: str, known: Iterable[str]) -> str:
    """What to say of an option that does not exist.

    Args:
        option: as the user wrote it, such as "model.embeding_dim".
        known: every option there is.
    """
    names = [name for name in known if not name.endswith("_target_")]
    near = _nearest(option, names)
    mend = f"did you mean {near}?" if near else _choices(option, names)
    return f"{option} does not exist: {mend}"


def unreadable(override: str, reason: str) -> str:
    """What to say of an argument that is no `name=value`.

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
    """What to say when the system refuses a file or folder that nobody expected it to refuse."""
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


def _nearest(option: str, known: Sequence[str]) -> str | None:
    """The known option most like one: by its last word alone if its group is missing."""
    leaf = option.rpartition(".")[2]
    namesakes = [name for name in known if name.rpartition(".")[2] == leaf]
    return next(iter([*namesakes, *get_close_matches(option, known, n=1, cutoff=0.75)]), None)


def _choices(option: str, known: Sequence[str]) -> str:
    group = option.rpartition(".")[0]
    beside = [name for name in known if name.rpartition(".")[0] == group]
    return f"choose from {', '.join(beside)}" if beside else "--cfg all shows every option"


def _unknown_choice(found: re.Match[str], cause: str, known: Known) -> str:
    del cause, known
    names = found["choices"].split() if found["choices"] else []
    mend = f"choose from {', '.join(names)}" if names else "there is nothing to choose from"
    return f"{found['group']}={found['name']} does not exist: {mend}"


def _wrong_kind(found: re.Match[str], cause: str, known: Known) -> str:
    del known
    wanted = re.search(r"could not be converted to (\w+)", cause)
    mend = f"give {_KINDS.get(wanted[1], wanted[1])}" if wanted else "it needs a value"
    return f"{found['override']} is of a wrong kind: {mend}"


def _taken_away(found: re.Match[str], cause: str, known: Known) -> str:
    del cause, known
    kept = re.split(r", ", found["keys"])
    gone = [key for key in re.findall(r"\$\{(\w+)\}", found["asked"]) if key not in kept]
    option = gone[0] if gone else found["asked"]
    return f"{option} has no value: add {option}="


_SENTENCES: tuple[tuple[str, Callable[[re.Match[str], str, Known], str]], ...] = (
    (
        r"Could not override '(?P<option>[\w.]+)'",
        lambda found, _, known: unknown_option(found["option"], known()),
    ),
    (
        r"Could not find '(?P<group>[^']+)/(?P<name>[^'/]+)'"
        r"(.*Available options in '[^']+':(?P<choices>.*?)\n\w)?",
        _unknown_choice,
    ),
    (r"Error merging override (?P<override>.+)$", _wrong_kind),
    (
        r"Ambiguous value for argument '(?P<name>[^=]+)=(?P<values>[^']+)'",
        lambda found, *_: (
            f"{found['name']}={found['values']} holds several values: add --multirun to run each, "
            f"or write '{found['name']}=[{found['values']}]' for a list"
        ),
    ),
    (
        r"Missing mandatory value: .*full_key: (?P<option>\S+)",
        lambda found, *_: f"{found['option']} has no value: add {found['option']}=",
    ),
    (
        r"Error resolving interpolation '(?P<asked>[^']+)', possible interpolation keys: "
        r"(?P<keys>[\w, ]+)",
        _taken_away,
    ),
    (
        r"Interpolation key '(?P<key>[^']+)' not found.*full_key: (?P<option>\S+)",
        lambda found, *_: f"{found['option']} refers to {found['key']}, which does not exist",
    ),
    (
        r"Multiple values for (?P<group>[\w/]+)\.",
        lambda found, *_: f"{found['group']} is chosen already: write it without the +",
    ),
    (
        r"Cannot find primary config '(?P<name>[^']+)'",
        lambda found, *_: (
            f"there is no {found['name']}.yaml there: give --config-path the folder of a run"
        ),
    ),
    (
        r"config directory '(?P<folder>[^']+)' exists",
        lambda found, *_: f"{found['folder']} is no folder: give --config-path the folder of a run",
    ),
)
