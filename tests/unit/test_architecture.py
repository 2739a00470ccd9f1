"""The layout of the package: its rooms, the arrows between them, and the length of files.

import-linter holds the layers; this file holds the figures that keep the package easy to enter.
"""

import ast
import re
from pathlib import Path
from statistics import median

import fedrec_flower

PACKAGE = Path(fedrec_flower.__file__).parent
FILES = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
MAX_ROOMS, MAX_ARROWS, MAX_LINES = 16, 70, 500


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(text: str) -> set[str]:
    """The rooms that a file imports, also inside functions."""
    names = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    ]
    return {name.split(".")[1] for name in names if name.startswith("fedrec_flower.")}


def test_package_has_few_rooms() -> None:
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert len(rooms) <= MAX_ROOMS, sorted(rooms)


def test_rooms_import_few_other_rooms() -> None:
    rooms = {room_of(path) for path in FILES}
    arrows = {
        (room_of(path), room)
        for path, text in FILES.items()
        for room in imported_rooms(text) & rooms
        if room != room_of(path)
    }
    assert len(arrows) <= MAX_ARROWS, sorted(arrows)


def test_no_file_is_too_long_and_the_median_is_not_a_fragment() -> None:
    lengths = {path: text.count("\n") for path, text in FILES.items()}
    assert {path.name: n for path, n in lengths.items() if n > MAX_LINES} == {}
    assert median(n for path, n in lengths.items() if path.name != "__init__.py") >= 100


def test_capabilities_are_declared_instead_of_compared_methods() -> None:
    """Overriding a method must never flip a guarantee, such as `uses_only_the_sum`."""
    compared = re.compile(
        r"\b[\w.()]+\.\w+ is (not )?[A-Z]\w+\.\w+\b|getattr\(.*\)\s+is (not )?getattr"
    )
    found = {
        f"{path.name}: {match.group(0)}"
        for path, text in FILES.items()
        for match in compared.finditer(text)
        if not re.search(r"is (not )?[A-Z]\w*\.[A-Z_]+\b", match.group(0))  # members of enums
    }
    assert found == set()


def test_no_class_path_stands_in_a_string() -> None:
    texts = [
        (path.name, node.value)
        for path, text in FILES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    paths = re.compile(r"fedrec_flower(\.\w+)+\.[A-Z]\w*")
    assert [(name, text) for name, text in texts if paths.fullmatch(text)] == []
