"""Tokenizer files: small ones trained here, and every way in which a file can be the wrong one."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_pretrained import MEAN, STD, small_card, small_observation, small_weights

from pirl_server.model.byte_tokens import BOS, NEWLINE, PAD, VOCABULARY
from pirl_server.policy.checkpoint import file_sha256, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.processing_spec import TokenizerFile
from pirl_server.policy.prompt import discretised, with_state
from pirl_server.policy.tokenizer import KNOWN, PROBE, ByteTokenizer, Ids, open_tokenizer

WORDS = "pick up the red cube and put it on the table push open close drawer Task: State: 0 128 255 -1; Action:"
SENTENCES = [WORDS, *WORDS.split(), *(str(number) for number in range(-1, 256)), PROBE.replace("\n", " ")]
SMALL = Ids(pad=0, eos=1, bos=2, newline=(4,))
FOUR = ("<pad>", "<eos>", "<bos>", "<unk>")


@pytest.fixture(scope="module")
def sentencepiece_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed (extra: paligemma)")
    model = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3), model_writer=model, vocab_size=120, model_type="bpe", minloglevel=2,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        user_defined_symbols=["\n"], normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=False, split_digits=True,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("sentencepiece") / "tokenizer.model"
    path.write_bytes(model.getvalue())
    return path


@pytest.fixture(scope="module")
def json_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = pytest.importorskip("tokenizers", reason="tokenizers is not installed (extra: paligemma)")
    model = library.Tokenizer(library.models.BPE(unk_token="<unk>"))
    model.normalizer = library.normalizers.Replace(" ", "▁")
    model.decoder = library.decoders.Replace("▁", " ")
    trainer = library.trainers.BpeTrainer(vocab_size=120, special_tokens=[*FOUR, "\n"], show_progress=False)
    model.train_from_iterator(SENTENCES, trainer)
    model.decoder = library.decoders.Sequence([model.decoder, library.decoders.Fuse()])
    model.post_processor = library.processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    model.enable_truncation(5)
    path = tmp_path_factory.mktemp("tokenizers") / "tokenizer.json"
    model.save(str(path))
    return path


def size_of(path: Path) -> int:
    """Vocabulary by another road: the pieces of the file itself."""
    if path.suffix == ".json":
        return len(json.loads(path.read_text())["model"]["vocab"])
    library = pytest.importorskip("sentencepiece")
    return int(library.SentencePieceProcessor(model_file=str(path)).piece_size())


def wanted(path: Path, vocabulary: int | None = None) -> TokenizerFile:
    kind = "sentencepiece" if path.suffix == ".model" else "tokenizer_json"
    return TokenizerFile(kind, size_of(path) if vocabulary is None else vocabulary, "0" * 64)


FILES = pytest.mark.parametrize("fixture", ["sentencepiece_file", "json_file"])


@FILES
def test_ids_of_a_file(fixture: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(fixture)
    opened = open_tokenizer(wanted(path), path)
    assert (opened.pad, opened.bos, opened.newline) == (0, 2, (4,))
    text = "pick up the cube"
    ids = opened.encode(text)
    assert 2 not in ids, "BOS is the prompt's affair"
    assert opened.encode(text) == ids
    assert len(opened.encode(PROBE)) > 5, "the file's own truncation is switched off"
    assert opened.encode("a ")[-1] != opened.encode("a")[-1], "the space at the end of pi0.5's prompt is kept"
    assert 4 in opened.encode("a;\nb"), "a line break within text is the same token"
    assert max(ids) < opened.vocabulary == size_of(path)


@FILES
def test_both_ways_give_the_text_back(fixture: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(fixture)
    known = {size_of(path): ("Small", SMALL)}
    open_tokenizer(wanted(path), path, known)
    with pytest.raises(ValueError, match="Small has Ids"):
        open_tokenizer(wanted(path), path, {size_of(path): ("Small", SMALL._replace(newline=(108,)))})


@FILES
def test_another_vocabulary_is_refused(fixture: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(fixture)
    with pytest.raises(ValueError, match=f"has {size_of(path)} tokens, the card requires 257152: wrong file"):
        open_tokenizer(wanted(path, 257_152), path)


@FILES
@pytest.mark.parametrize("content", [b"", b"{", b"not a tokenizer", b"\x00\xff" * 50])
def test_a_damaged_file_is_one_clear_value_error(
    fixture: str, content: bytes, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = tmp_path / request.getfixturevalue(fixture).name
    path.write_bytes(content)
    with pytest.raises(ValueError, match="can't be read as a"):
        open_tokenizer(wanted(request.getfixturevalue(fixture)), path)


def test_a_file_that_loses_text_is_refused(json_file: Path, tmp_path: Path) -> None:
    """One that lowers its letters has the right ids and the right size, and reads other prompts."""
    raw = json.loads(json_file.read_text())
    raw["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, raw["normalizer"]]}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(raw))
    open_tokenizer(wanted(path), path)  # nothing is known of this vocabulary
    with pytest.raises(ValueError, match=r"reads 'Task: .* as 'task: "):
        open_tokenizer(wanted(path), path, {size_of(path): ("Small", SMALL)})


def test_a_file_without_the_tokens_of_a_prompt_is_refused(json_file: Path, tmp_path: Path) -> None:
    raw = json.loads(json_file.read_text())
    raw["added_tokens"] = [each for each in raw["added_tokens"] if each["content"] != "<bos>"]
    raw["model"]["vocab"]["<other>"] = raw["model"]["vocab"].pop("<bos>")
    raw["post_processor"] = None
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="has no token for bos: neither a PaliGemma nor a SmolVLM file"):
        open_tokenizer(wanted(path), path)


@FILES
def test_a_policy_is_loaded_with_its_tokenizer_file(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = request.getfixturevalue(fixture)
    described = replace(wanted(path), sha256=file_sha256(path))
    card = small_card("pi05", {"tokenizer": described}, tokenizer=described.kind)
    card = replace(card, model=replace(card.model, vocabulary=described.vocabulary, max_tokens=100))
    save_checkpoint(tmp_path, card, small_weights(card).state_dict(), parent=path.parent)
    policy = FlowPolicy.load(tmp_path)
    assert np.isfinite(policy.sample(small_observation(), explore=False, seed=0).actions).all()
    here = small_observation()
    ids, mask = policy.processor.prompts(["push_it"], here.state[None])
    state = discretised((here.state - np.array(MEAN)) / np.array(STD))
    opened = open_tokenizer(described, path)
    assert ids[mask].tolist() == [2, *opened.encode(with_state("push it", state))]
    (tmp_path / path.name).write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match="is not the tokenizer of the card"):
        FlowPolicy.load(tmp_path)


def test_bytes_need_no_file() -> None:
    opened = open_tokenizer(TokenizerFile("bytes", VOCABULARY), None)
    assert isinstance(opened, ByteTokenizer)
    assert (opened.vocabulary, opened.pad, opened.bos, opened.newline) == (260, PAD, BOS, (NEWLINE,))
    assert opened.encode("é") == [0xC3, 0xA9]


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(ValueError, match="needs its file: load the policy from its checkpoint folder"):
        open_tokenizer(TokenizerFile("sentencepiece", 9, ""), None)


@pytest.mark.parametrize(("name", "module"), [("a.model", "sentencepiece"), ("a.json", "tokenizers")])
def test_a_missing_library_is_named_with_its_extra(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    kind = "sentencepiece" if name.endswith(".model") else "tokenizer_json"
    with pytest.raises(ValueError, match=rf"needs the package '{module}': pip install 'pirl\[paligemma\]'"):
        open_tokenizer(TokenizerFile(kind, 9, ""), Path(name))


def test_what_is_known_of_paligemma() -> None:
    assert {ids for _, ids in KNOWN.values()} == {Ids(0, 1, 2, (108,))}
    assert set(KNOWN) == {257_152, 257_153}
