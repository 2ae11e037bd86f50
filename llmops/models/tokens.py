"""Token estimates for when no provider counts for us: cheap, and the same in plan, render and call.

Exact counts need the provider's own tokenizer and come with its reply; what is estimated here says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmops.records import Message

BYTES_A_TOKEN = 4
TOKENS_A_WORD_TENTHS = 13
MESSAGE_TOKENS = 4  # role and separators of one chat message, as OpenAI documents its own formats


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text is: its UTF-8 bytes by four, and at least 1.3 a word.

    Bytes rather than characters, because scripts beyond Latin take about a token a character.
    Never falls when a text grows at its end, so a text can be cut to a number of tokens by bisection.
    """
    by_bytes = -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN)
    by_words = -(-len(text.split()) * TOKENS_A_WORD_TENTHS // 10)
    return max(by_bytes, by_words)


def estimate_input_tokens(messages: Iterable[Message]) -> int:
    """Return about how many tokens a conversation is, four a message for what stands around its text."""
    return sum(estimate_tokens(message.content) + MESSAGE_TOKENS for message in messages)


def cut_to_tokens(text: str, limit: int) -> str:
    """Return the longest beginning of a text that is estimated at no more than `limit` tokens."""
    if estimate_tokens(text) <= limit:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if estimate_tokens(text[:middle]) <= limit else (low, middle - 1)
    return text[:low]
