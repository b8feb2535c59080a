"""The byte tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pirl_server.model.byte_tokens import BOS, NEWLINE, PAD, VOCABULARY, encode, encode_all, prompt


def test_prompt_form() -> None:
    assert prompt(" pick_the\ncube ") == [BOS, *b"pick the cube", NEWLINE]
    assert (PAD, BOS, NEWLINE, VOCABULARY) == (256, 257, 259, 260)


@given(st.text(max_size=20))
def test_padding_is_on_the_right_and_nothing_is_lost(text: str) -> None:
    ids, mask = encode(text, 100)
    count = int(mask.sum())
    assert mask.tolist() == [True] * count + [False] * (100 - count)
    assert ids[count:].tolist() == [PAD] * (100 - count)
    assert bytes(ids[1 : count - 1].tolist()).decode() == text.strip().replace("_", " ").replace("\n", " ")


def test_a_long_instruction_is_refused_in_words() -> None:
    encode("1234", 6)
    with pytest.raises(ValueError, match="'12345' takes 7 tokens, the model reads 6"):
        encode("12345", 6)


def test_several() -> None:
    ids, mask = encode_all(["a", "bcd"], 8)
    assert ids.shape == (2, 8)
    assert mask.sum(dim=1).tolist() == [3, 5]
