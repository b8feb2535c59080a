"""Text to ids. Ours is bytes; PaliGemma's or SmolVLM's is a file supplied by the user and checked before a robot moves.

The libraries that read such files are optional and imported where one is opened: `pip install pirl[paligemma]`. They
are called directly: through transformers a server would start seconds later and a prompt take twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pirl_server.model.byte_tokens import BOS, EOS, NEWLINE, PAD, VOCABULARY
from pirl_server.policy.processing_spec import TokenizerFile

PROBE = "Task: pick up the red cube, State: 0 128 255 -1;\nAction:"
"""every kind of character that our prompts add to an instruction"""


class Ids(NamedTuple):
    """Ids that a model's embedding rows have been trained on."""

    pad: int
    eos: int
    bos: int
    newline: tuple[int, ...]


PALIGEMMA = Ids(pad=0, eos=1, bos=2, newline=(108,))
KNOWN: Mapping[int, tuple[str, Ids]] = {257_152: ("PaliGemma", PALIGEMMA), 257_153: ("PaliGemma", PALIGEMMA)}
"""by vocabulary: sentencepiece's file, and the tokenizer.json that adds a token for images"""


PAD_NAMES, EOS_NAMES, BOS_NAMES = ("<pad>", "<|im_end|>"), ("<eos>", "<end_of_utterance>"), ("<bos>", "<|im_start|>")
"""of special tokens in a tokenizer.json: PaliGemma's, then SmolVLM's"""


class Tokenizer(Protocol):
    """What `policy.prompt` needs."""

    @property
    def vocabulary(self) -> int:
        """Largest id + 1."""

    @property
    def pad(self) -> int:
        """Fills the prompt on the right."""

    @property
    def bos(self) -> int:
        """First token of a prompt."""

    @property
    def newline(self) -> tuple[int, ...]:
        """A line break that was encoded on its own."""

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone, without BOS."""


class ByteTokenizer:
    """UTF-8 bytes and four tokens of our own; see `model.byte_tokens`."""

    vocabulary, pad, bos, newline = VOCABULARY, PAD, BOS, (NEWLINE,)
    ids = Ids(PAD, EOS, BOS, (NEWLINE,))

    def encode(self, text: str) -> list[int]:
        """One id per byte."""
        return list(text.encode())


@dataclass(frozen=True)
class FileTokenizer:
    """A sentencepiece model or a tokenizer.json behind one face."""

    vocabulary: int
    ids: Ids
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]

    @property
    def pad(self) -> int:
        """See `Tokenizer`."""
        return self.ids.pad

    @property
    def bos(self) -> int:
        """See `Tokenizer`."""
        return self.ids.bos

    @property
    def newline(self) -> tuple[int, ...]:
        """See `Tokenizer`."""
        return self.ids.newline


def open_tokenizer(wanted: TokenizerFile, path: Path | None, known: Mapping[int, tuple[str, Ids]] = KNOWN) -> Tokenizer:
    """The tokenizer of a card from the file in its checkpoint folder, None for bytes.

    That it is the very file of the card, by its hash, is checked where checkpoints are read. Raises ValueError
    when the library is missing, or the file is damaged, of another vocabulary or of other ids.
    """
    if wanted.kind == "bytes":
        return ByteTokenizer()
    if path is None:
        raise ValueError(f"tokenizer '{wanted.kind}' needs its file: load the policy from its checkpoint folder")
    opened = _sentencepiece(path) if wanted.kind == "sentencepiece" else _tokenizer_json(path)
    if opened.vocabulary != wanted.vocabulary:
        raise ValueError(f"'{path}' has {opened.vocabulary} tokens, the card requires {wanted.vocabulary}: wrong file")
    if opened.vocabulary in known:
        _check_known(opened, path, *known[opened.vocabulary])
    return opened


def _sentencepiece(path: Path) -> FileTokenizer:
    library = _library("sentencepiece", path)
    try:
        model = library.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"'{path}' can't be read as a sentencepiece model: {_first_line(error)}") from error
    ids = Ids(model.pad_id(), model.eos_id(), model.bos_id(), tuple(model.encode("\n")))
    return _checked(FileTokenizer(model.vocab_size(), ids, model.encode, model.decode), path)


def _tokenizer_json(path: Path) -> FileTokenizer:
    library = _library("tokenizers", path)
    try:
        model = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no type of its own
        raise ValueError(f"'{path}' can't be read as a tokenizer.json: {_first_line(error)}") from error
    model.no_padding()
    model.no_truncation()

    def encode(text: str) -> list[int]:
        return list(model.encode(text, add_special_tokens=False).ids)

    def decode(ids: list[int]) -> str:
        return str(model.decode(ids, skip_special_tokens=False))

    vocabulary = model.get_vocab(with_added_tokens=True)
    pad, eos, bos = (_first_id(vocabulary, names) for names in (PAD_NAMES, EOS_NAMES, BOS_NAMES))
    ids = Ids(pad, eos, bos, tuple(encode("\n")))
    return _checked(FileTokenizer(1 + max(vocabulary.values()), ids, encode, decode), path)


def _first_id(vocabulary: Mapping[str, int], names: Sequence[str]) -> int:
    return next((vocabulary[name] for name in names if name in vocabulary), -1)


def _checked(opened: FileTokenizer, path: Path) -> FileTokenizer:
    """Reject a tokenizer without the tokens that a prompt is built of."""
    missing = [name for name in ("pad", "bos") if getattr(opened.ids, name) < 0]
    if missing or not opened.ids.newline:
        lacking = " and ".join(missing) or "a line break"
        raise ValueError(f"'{path}' has no token for {lacking}: neither a PaliGemma nor a SmolVLM file")
    return opened


def _check_known(opened: FileTokenizer, path: Path, name: str, ids: Ids) -> None:
    """Raise ValueError unless ids are those of the named vocabulary and text survives both ways."""
    if opened.ids != ids:
        raise ValueError(f"'{path}' has {opened.ids}, {name} has {ids}: use the tokenizer the model was trained with")
    back = opened.decode(opened.encode(PROBE))
    if back.strip() != PROBE:
        raise ValueError(f"'{path}' reads {PROBE!r} as {back!r}: use the tokenizer the model was trained with")


def _library(name: str, path: Path) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"'{path}' needs the package '{name}': pip install 'pirl[paligemma]'") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
