"""Detects the kind of a tokenizer file: sentencepiece protobuf, tokenizer.json, or our own bytes.

Its ids are checked against the embedding's rows here, its pieces where it is used.
"""

from __future__ import annotations

import json
from pathlib import Path

from pirl_server.interchange.checkpoints.source_folder import one_line
from pirl_server.model.byte_tokens import VOCABULARY
from pirl_server.policy.checkpoint import TOKENIZERS, file_sha256
from pirl_server.policy.processing_spec import TokenizerFile

BYTES = "bytes"
MARGIN = 64
"""rows more or fewer than tokens: libraries pad embeddings, and add tokens for images that pi0 never writes"""
LENGTH_DELIMITED, WIDTHS = 2, {1: 8, 5: 4}
"""protobuf wire types"""


def describe(choice: str, rows: int) -> tuple[TokenizerFile, str]:
    """What the card says of "bytes" or of a file, and the name the file gets in a checkpoint ("" for bytes).

    Raises ValueError for a file that is neither kind, or whose tokens are not those of an embedding of `rows`.
    """
    if choice == BYTES:
        if not VOCABULARY <= rows < 100 * VOCABULARY:
            raise ValueError(f"an embedding of {rows} rows was not trained on bytes: give its --tokenizer FILE")
        return TokenizerFile("bytes", VOCABULARY), ""
    path = Path(choice)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"tokenizer '{path}' can't be read: {one_line(error)}") from error
    is_json = content.lstrip()[:1] == b"{"
    tokens = _json_tokens(path, content) if is_json else sentencepiece_tokens(content)
    if not tokens:
        raise ValueError(f"'{path}' is neither a sentencepiece model nor a tokenizer.json")
    if abs(tokens - rows) > MARGIN:
        raise ValueError(f"'{path}' has {tokens} tokens, the model's embedding {rows} rows: different tokenizer")
    kind, name = ("tokenizer_json", TOKENIZERS[1]) if is_json else ("sentencepiece", TOKENIZERS[0])
    return TokenizerFile(kind, tokens, file_sha256(path)), name  # type: ignore[arg-type]  # both are kinds


def _json_tokens(path: Path, content: bytes) -> int:
    try:
        raw = json.loads(content)
        ids = [*raw["model"]["vocab"].values(), *(each["id"] for each in raw.get("added_tokens", []))]
        return 1 + max(map(int, ids))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"'{path}' is not a tokenizer.json: it has no 'model.vocab'") from error


def sentencepiece_tokens(content: bytes) -> int:
    """Pieces of a serialised ModelProto (its field 1); 0 when the bytes are something else."""
    at = pieces = 0
    while at < len(content):
        key, at = _varint(content, at)
        field, wire = key >> 3, key & 7
        if wire == LENGTH_DELIMITED:
            length, at = _varint(content, at)
            at += length
        elif wire == 0:
            _, at = _varint(content, at)
        elif wire in WIDTHS:
            at += WIDTHS[wire]
        else:
            return 0
        pieces += field == 1 and wire == LENGTH_DELIMITED
    return pieces if at == len(content) else 0


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; past the end of the content for none."""
    value = shift = 0
    while at < len(content) and shift < 64:
        byte = content[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
    return value, len(content) + 1
