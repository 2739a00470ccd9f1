"""Docstrings and comments are plain technical English.

The list of marked words and phrases is a proxy: people as subjects of objects ("the server
hears"), relative clauses without a noun ("of what was sent"), metaphors. Short sentences with
the field's nouns avoid all of them.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedrec_flower

PACKAGE = Path(fedrec_flower.__file__).parent
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
MAX_SHARE = 0.02

MARKED = re.compile(
    r"""
    \b(tell|tells|told|telling|say|says|said|saying|hear|hears|heard|speak|speaks|talks?)\b
    | \b(whoever|whatever|whichever|nobody|somebody|anybody|everybody|everyone|someone)\b
    | \b(anyone|nothing|beside|besides|alike|apart|anew|once\ more|thereof|therein|lest)\b
    | \b(mend|mends|mended|mending|sound|unsound|liars?|mishaps?|owed|owes|worlds?|ruler)\b
    | \b(spoil(s|ed|ing)?|cook(s|ed)?|recipes?|disguised?|curious|learnt|forgets?|believed?)\b
    | \b(by|for)\ (itself|themselves)\b | \b(hangs?\ on|but\ for|of\ one's|at\ all|in\ vain)\b
    | \b(go|goes|went)\ (on|wrong)\b | \b(gives?\ up|left\ alone|the\ like|looks?\ closer)\b
    | \b(counts|knows|needs|does|is|are|has|have)\ (not|never|nothing)[.,;:]
    | \b(of|by|from|with|to|in|for|than|as|on|at|and|or|only|all)\ what\b
    | \bwhat\ (is|was|are|were|it|they|a|an|the|this|that|each|every|one|no|its|their|comes)\b
    | \bwhat\ (goes|stands|remains|has|had|would|could|can|may|does|did)\b
    | ^(What|Who)\b(?!.*\?)
    | \bSee\ `[^`]+`\.?$
    """,
    re.VERBOSE | re.IGNORECASE,
)
NO_PROSE = re.compile(r"#\s*(noqa|type:|pragma|!)")


def passages(source: str) -> Iterator[str]:
    """Yield every paragraph of a docstring and every block of comments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            # A paragraph ends at a blank line or before the next argument of a list.
            yield from re.split(r"\n\s*\n|\n(?=\s*\w[\w, *]*: )", ast.get_docstring(node) or "")
    block: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or NO_PROSE.match(token.string):
            continue
        if token.start[0] != last + 1:
            yield " ".join(block)
            block = []
        block.append(token.string.lstrip("# "))
        last = token.start[0]
    yield " ".join(block)


def sentences(source: str) -> list[str]:
    return [
        sentence
        for passage in passages(source)
        for sentence in re.split(r"(?<=[.!?;:])\s+", " ".join(passage.split()))
        if len(sentence.split()) > 2
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_few_sentences_of_a_room_hold_a_marked_phrase(room: str) -> None:
    texts = [s for p in sorted((PACKAGE / room).rglob("*.py")) for s in sentences(p.read_text())]
    marked = [sentence for sentence in texts if MARKED.search(sentence)]
    assert len(marked) <= MAX_SHARE * len(texts), marked


def test_marked_phrases_are_found_and_plain_sentences_are_not() -> None:
    source = '"""What the nodes tell is owed.\n\nThe server averages the updates."""\n'
    assert [bool(MARKED.search(text)) for text in sentences(source)] == [True, False]
