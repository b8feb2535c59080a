#!/usr/bin/env bash
# transformers 5.24.0, AutoTokenizer on a folder whose tokenizer.json has a step of its own, here instructions in lower case.
# Expected: tokenizer.json is the whole tokenizer, as `tokenizers.Tokenizer.from_file` reads it; `save_pretrained` and
# `from_pretrained` give back what was saved.
# Seen: where tokenizer_config.json names a class, as `save_pretrained` writes it, the class builds normaliser and
# pre-tokeniser anew and takes only vocabulary, merges and post-processor from the file. The own step is gone without a word,
# and the policy gets other tokens than it was trained with. The same file is read whole when the class is
# `PreTrainedTokenizerFast`, or when no class is named and config.json names no model that has one.
# Output seen: "made: [271, 263, 265]", "saved and loaded, GPT2Tokenizer: [47, 80, 267, 263, 221, 36, 50, 33, 55, 37, 50]",
# "PreTrainedTokenizerFast: as made", "no class: as made", "tokenizers alone: as made".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 tokenizers==0.23.3 numpy==2.4.6
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hub" TRANSFORMERS_VERBOSITY=error
"$folder/venv/bin/python" - "$folder" <<'PY'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

folder, text = Path(sys.argv[1], "tokenizer"), "Open the DRAWER"
trained = Tokenizer(models.BPE())
trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
trained.train_from_iterator(["open the drawer", "close the drawer"] * 20, trainer)
folder.mkdir()
trained.save(str(folder / "tokenizer.json"))
config = folder / "tokenizer_config.json"
config.write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))

tokenizer = AutoTokenizer.from_pretrained(folder)
tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
made = tokenizer(text)["input_ids"]
tokenizer.save_pretrained(folder)
kept = json.loads((folder / "tokenizer.json").read_text())["normalizer"]
assert kept == {"type": "Lowercase"}, "the file that was saved has the step"

found = {f"saved and loaded, {type(tokenizer).__name__}": AutoTokenizer.from_pretrained(folder)(text)["input_ids"]}
saved = json.loads(config.read_text())
config.write_text(json.dumps(saved | {"tokenizer_class": "PreTrainedTokenizerFast"}))
found["PreTrainedTokenizerFast"] = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
config.unlink()
found["no class"] = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
found["tokenizers alone"] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
print(f"made: {made}")
for name, ids in found.items():
    print(f"{name}: {'as made' if ids == made else ids}")
assert found.pop("saved and loaded, GPT2Tokenizer") != made, "CHANGED: what was saved is what is loaded"
assert all(ids == made for ids in found.values()), "CHANGED: the other ways"
PY
