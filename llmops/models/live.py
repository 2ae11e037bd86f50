"""What a model says while it is saying it, for whoever watches: a reply is whole before anything else sees it."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WATCHING: ContextVar[Callable[[str], None] | None] = ContextVar("watching", default=None)
"""Who watches and who reads a stream stand as far apart as who asks and who reads, in `hints`."""


@contextmanager
def watching(tell: Callable[[str], None]) -> Iterator[None]:
    """Give every piece of text of streamed replies to `tell`, as it comes, while the block waits for them.

    A try that failed has told what it said all the same, and a reply from the journal tells nothing.
    """
    token = _WATCHING.set(tell)
    try:
        yield
    finally:
        _WATCHING.reset(token)


def tell_text(text: str) -> None:
    """Tell whoever watches a piece of text."""
    tell = _WATCHING.get()
    if tell is not None:
        tell(text)
