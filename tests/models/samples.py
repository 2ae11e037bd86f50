"""Requests and replies that the tests of the protocol share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from llmops.models.wire import EventReader
from llmops.records import Message, Request, Tool

PARAMETERS = frozenset({"temperature", "stop"})
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello there"}]}
IMAGE = "data:image/png;base64,iVBORw0KGgo="
WEATHER = Tool(
    name="weather",
    description="The weather in a town.",
    parameters={
        "type": "object",
        "properties": {"town": {"type": "string"}},
        "required": ["town"],
        "additionalProperties": False,
    },
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def request(content: str = "hello", **fields: Any) -> Request:
    """Return a request of one message."""
    return Request(messages=(Message(role="user", content=content),), **fields)


def events_of(reader: EventReader, chunks: list[bytes]) -> list[tuple[str, str]]:
    """Return the events of all chunks."""
    return [event for chunk in chunks for event in reader.feed(chunk)]
