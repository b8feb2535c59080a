"""The words of docs/vocabulary.md: what its columns rule out stands in no text and in no name of the packages."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "vocabulary.md"
PACKAGES = ("msg/pirl_contract", "pirl_ros", "launch", "server", "sim")
NOT_PROSE = re.compile(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
"""of a page: code and the targets of links"""

ALLOWED_TEXT = {
    "call refused": "event name in the audit log, a stored format",
    "connection refused": "the operating system's error",
}
"""phrase: reason"""

ALLOWED_NAMES = {
    "_told": "private, renamed with the training package",
    "told_MF": "private, renamed with the training package",
    "_pictures": "private, renamed with the training package",
    "picture": "argument of augment and image_fitting, renamed with them",
}
"""name: reason"""


def table() -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


def ruled_out(column: int) -> list[str]:
    return [word for row in table() for word in re.findall(r"`([^`]+)`", row[column])]


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [ROOT / name for name in listed if name.endswith(".py") and "/v1/" not in name and (ROOT / name).exists()]


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every comment, docstring and string that is more than one word."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, re.sub(r"`[^`]*`", "", node.value)


def names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg


def wrong_words(text: str, words: list[str]) -> list[str]:
    for phrase in ALLOWED_TEXT:
        text = re.sub(re.escape(phrase), "", text, flags=re.IGNORECASE)
    return re.findall(rf"\b(?:{'|'.join(words)})\b", " ".join(text.split()), re.IGNORECASE)


def wrong_parts(name: str, words: list[str]) -> list[str]:
    """Return the parts of a snake_case or CamelCase name that are ruled out."""
    parts = [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]
    return [] if name in ALLOWED_NAMES else [part for part in parts if part in words]


def test_texts_of_the_packages() -> None:
    words = ruled_out(2)
    found = [f"{path.relative_to(ROOT)}:{line}: {hits}" for path in sources()
             for line, text in texts(path.read_text()) if (hits := wrong_words(text, words))]  # fmt: skip
    assert found == [], "see docs/vocabulary.md for the word to write"


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: str(path.relative_to(ROOT))
)
def test_pages(path: Path) -> None:
    assert wrong_words(NOT_PROSE.sub(" ", path.read_text()), ruled_out(2)) == [], "see docs/vocabulary.md"


def test_names_of_the_packages() -> None:
    words = ruled_out(3)
    found = [f"{path.relative_to(ROOT)}: {name}" for path in sources()
             for name in [path.stem, *names(path.read_text())] if wrong_parts(name, words)]  # fmt: skip
    assert found == [], "see docs/vocabulary.md for the word to write"


def test_what_is_ruled_out_is_found() -> None:
    source = 'def told(wish):  # heard\n    """Anew."""\n    """Begin anew."""\n    raise E(f"{wish} was refused")\n'
    texts_of_it = [text for _, text in texts(source)]
    assert [hit for text in texts_of_it for hit in wrong_words(text, ruled_out(2))] == ["heard", "anew", "refused"]
    assert [name for name in names(source) if wrong_parts(name, ruled_out(3))] == ["told", "wish"]
    assert wrong_parts("WishList", ruled_out(3)) == ["wish"]
    assert wrong_words("what\nbecame of it", ruled_out(2)) == ["what became of"]
    assert wrong_words("retold, `told`", ruled_out(2)) == ["told"], "whole words; backticks are the caller's to remove"


def test_each_term_has_a_row_and_no_word_is_both() -> None:
    terms = {term.strip() for row in table() for term in row[0].split(",")}
    assert len(table()) >= 20
    assert not terms & set(ruled_out(2)), "a term is ruled out"
