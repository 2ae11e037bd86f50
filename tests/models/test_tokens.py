"""Estimates of tokens: laws that plan, render and call rely on."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from llmops.models.tokens import MESSAGE_TOKENS, cut_to_tokens, estimate_input_tokens, estimate_tokens
from llmops.records import Message


def test_nothing_is_no_token() -> None:
    assert estimate_tokens("") == 0


def test_long_words_count_by_four_bytes_and_short_ones_by_the_word() -> None:
    assert estimate_tokens("internationalisation") == 5
    assert estimate_tokens("a b c d e f g h i j") == 13
    assert estimate_tokens("退货政策") == 3


def test_a_conversation_costs_its_texts_and_something_a_message() -> None:
    messages = [Message(role="system", content="Be kind."), Message(role="user", content="Hello there")]
    texts = estimate_tokens("Be kind.") + estimate_tokens("Hello there")
    assert estimate_input_tokens(messages) == texts + 2 * MESSAGE_TOKENS


@given(st.text())
def test_an_estimate_is_at_least_a_quarter_of_the_bytes_and_a_third_more_than_the_words(text: str) -> None:
    n_bytes = len(text.encode("utf-8", "surrogatepass"))
    assert estimate_tokens(text) == max(math.ceil(n_bytes / 4), math.ceil(len(text.split()) * 13 / 10))


@given(st.text(), st.text(max_size=5))
def test_an_estimate_never_falls_when_a_text_grows(text: str, more: str) -> None:
    assert estimate_tokens(text) <= estimate_tokens(text + more)


@given(st.text(), st.integers(min_value=0, max_value=30))
def test_a_cut_text_is_the_longest_beginning_that_fits(text: str, limit: int) -> None:
    cut = cut_to_tokens(text, limit)
    assert text.startswith(cut)
    assert estimate_tokens(cut) <= limit
    assert cut == text or estimate_tokens(text[: len(cut) + 1]) > limit
