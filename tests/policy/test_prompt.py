"""Prompts, token by token, in every form; the state as numbers; nothing is ever cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pirl_server.model.byte_tokens import BOS, NEWLINE, PAD, VOCABULARY, encode
from pirl_server.policy.prompt import Prompter, cleaned, discretised, with_state
from pirl_server.policy.tokenizer import ByteTokenizer

STATE = np.array([[-1.0, 0.0, 0.5]])


def prompt(form: Any, instruction: str, state: Any = STATE, *, clean: bool = True, max_tokens: int = 80) -> list[int]:
    ids, mask = Prompter(ByteTokenizer(), form, clean, max_tokens, VOCABULARY).tokens([instruction], np.asarray(state))
    used = int(mask.sum())
    assert ids.shape == mask.shape == (1, max_tokens)
    assert mask[0, :used].all(), "padding is on the right"
    assert set(ids[0, used:].tolist()) <= {PAD}
    return ids[0, :used].tolist()


@pytest.mark.parametrize("form", ["pi0", "pi05_without_state"])
def test_pi0_s_form_is_bos_text_and_a_newline_of_its_own(form: str) -> None:
    assert prompt(form, " push_the\ncube ") == [BOS, *b"push the cube", NEWLINE]
    assert prompt(form, "push_the cube\n", clean=False) == [BOS, *b"push_the cube", NEWLINE]
    assert prompt(form, " push ", clean=False) == [BOS, *b" push ", NEWLINE]


def test_smolvla_s_form_is_the_text_and_one_line_break() -> None:
    """No BOS; a break that is there already is the one."""
    assert prompt("smolvla", " push_the cube", clean=False) == [*b" push_the cube\n"]
    assert prompt("smolvla", "push\n", clean=False) == [*b"push\n"]


def test_pi05_s_form_holds_the_state_and_ends_in_a_space() -> None:
    assert prompt("pi05", "push_it ") == [BOS, *b"Task: push it, State: 0 128 192;\nAction: "]
    assert prompt("pi05", "push_it", clean=False)[1:] == list(b"Task: push_it, State: 0 128 192;\nAction: ")


def test_our_own_small_policies_read_the_same_prompt_either_way() -> None:
    ids, mask = encode("push_it\n", 20)
    assert prompt("pi0", "push_it\n", max_tokens=20) == ids[mask].tolist()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-1.0, 0), (-1.0001, -1), (-9.0, -1), (-0.9922, 0), (-0.9921, 1), (0.0, 128), (-1e-9, 127), (0.9921, 254),
     (0.9922, 255), (1.0, 255), (7.0, 255)],
)  # fmt: skip
def test_bins_worked_out_by_hand(value: float, expected: int) -> None:
    assert discretised(np.array([value])).tolist() == [expected]


@given(st.lists(st.integers(-3000, 3000), min_size=1, max_size=5))
def test_bins_are_a_floor_of_128_per_unit(numbers: list[int]) -> None:
    values = [number / 1024 for number in numbers]  # exact, edges of bins among them
    expected = [max(-1, min(255, int(np.floor((value + 1.0) * 128.0)))) for value in values]
    assert discretised(np.array(values)).tolist() == expected


def test_a_state_below_the_range_is_written_as_minus_one() -> None:
    assert with_state("go", discretised(np.array([-2.0, 2.0]))) == "Task: go, State: -1 255;\nAction: "


def test_rows_of_a_batch_are_padded_alike_and_keep_their_own_state() -> None:
    prompter = Prompter(ByteTokenizer(), "pi05", True, 60, VOCABULARY)
    ids, mask = prompter.tokens(["a", "bcd"], np.array([[0.0], [-1.0]]))
    texts = [bytes(row[keep][1:].tolist()) for row, keep in zip(ids, mask)]
    assert texts == [b"Task: a, State: 128;\nAction: ", b"Task: bcd, State: 0;\nAction: "]


@pytest.mark.parametrize("form", ["pi0", "pi05", "pi05_without_state"])
def test_an_instruction_that_does_not_fit_is_refused_not_cut(form: str) -> None:
    room = 80 - (len("Task: , State: 255 255 255;\nAction: ") + 1 if form == "pi05" else 2)
    full = prompt(form, "x" * room, np.full((1, 3), 2.0))
    assert len(full) == 80
    with pytest.raises(ValueError, match="can take 81 tokens, the model reads 80: shorten it"):
        prompt(form, "x" * (room + 1))


@pytest.mark.parametrize("state", [-1.0, 0.0, 2.0, -5.0])
def test_whether_it_fits_does_not_depend_on_the_joints(state: float) -> None:
    """Else a robot would stop in the middle of a motion: the same words, one more digit."""
    prompt("pi05", "x" * 43, np.full((1, 3), state))
    with pytest.raises(ValueError, match="shorten it"):
        prompt("pi05", "x" * 44, np.full((1, 3), state))


def test_an_id_without_an_embedding_is_refused() -> None:
    with pytest.raises(ValueError, match="has token 259, the model has 200"):
        Prompter(ByteTokenizer(), "pi0", True, 40, 200).tokens(["push"], STATE)


@given(st.text(max_size=20))
def test_cleaned_text_has_no_line_break_or_underscore_and_keeps_every_word(text: str) -> None:
    found = cleaned(text)
    assert not set(found) & {"_", "\n"}
    assert found.split() == text.replace("_", " ").split()
