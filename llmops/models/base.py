"""What every model is: something that takes a request and gives a reply, once, without retrying.

Retries, limits, journalling and cost belong to `call.py`; a provider translates, sends and checks. Protocol
work is apart from waiting: `encode` and `decode` are pure functions of each provider's module.
"""

from __future__ import annotations

from typing import Protocol

from llmops.records import Reply, Request


class Model(Protocol):
    """One deployment that answers chat requests."""

    version: str
    """Version of our own code behind the replies; part of the model's identity (`embedded` changes with it)."""

    parameters: frozenset[str]
    """Names of parameters it takes; any other is an error before anything is sent."""

    async def complete(self, request: Request, *, call_id: str, timeout_s: float) -> Reply:
        """Send one request and return its reply, whole; a streaming model measures `ttft_s` and `tpot_s`.

        call_id: sent as `Idempotency-Key` and `X-Client-Request-Id`; seeds the noise of `embedded`.
        timeout_s: for the whole call, first byte to last.

        Raises the leaves of ModelError, nothing else.
        """

    async def close(self) -> None:
        """Close connections; further calls are an error."""
