"""Token estimates for when no provider counts for us: cheap, and the same in plan, render and call.

Exact counts need the provider's own tokenizer and come with its reply; what is estimated here says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops.records import EmbeddingRequest, HttpRequest, ImagePart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmops.records import AnyRequest, Message

BYTES_A_TOKEN = 4
TOKENS_A_WORD_TENTHS = 13
MESSAGE_TOKENS = 4  # role and separators of one chat message, as OpenAI documents its own formats
IMAGE_TOKENS = 1_600  # what the largest image costs at Anthropic and, but for a few models, at OpenAI


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
    return sum(_message_tokens(message) for message in messages)


def _message_tokens(message: Message) -> int:
    tokens = estimate_tokens(message.text) + MESSAGE_TOKENS
    for call in message.tool_calls:
        tokens += estimate_tokens(call.name) + estimate_tokens(call.arguments)
    if not isinstance(message.content, str):
        tokens += sum(IMAGE_TOKENS for part in message.content if isinstance(part, ImagePart))
    return tokens


def estimate_request_tokens(request: AnyRequest) -> int:
    """Return about how many tokens go to a model with a request, its tools included; to a host that is none, none."""
    if isinstance(request, HttpRequest):
        return 0
    if isinstance(request, EmbeddingRequest):
        return sum(
            IMAGE_TOKENS if isinstance(each, ImagePart) else estimate_tokens(each) for each in request.inputs
        )
    tools = sum(estimate_tokens(tool.model_dump_json()) for tool in request.tools)
    return estimate_input_tokens(request.messages) + tools


def cut_to_tokens(text: str, limit: int) -> str:
    """Return the longest beginning of a text that is estimated at no more than `limit` tokens."""
    if estimate_tokens(text) <= limit:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if estimate_tokens(text[:middle]) <= limit else (low, middle - 1)
    return text[:low]
