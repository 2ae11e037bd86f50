"""Names looked up for aiohttp: it connects to what was checked here, so no second answer can lead elsewhere."""

from __future__ import annotations

import socket

from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult

from llmops.addresses import refuse_forbidden, refuse_private


class CheckedResolver(ThreadedResolver):
    """Looks names up as usual, and refuses where nothing of ours goes."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name; ForbiddenAddressError when one of them is forbidden."""
        found = await super().resolve(host, port, family)
        refuse_forbidden(host, [each["host"] for each in found])
        return found


class PublicResolver(CheckedResolver):
    """As above, and refuses whatever is not of the public internet."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name; ForbiddenAddressError when one of them is forbidden or private."""
        found = await super().resolve(host, port, family)
        refuse_private(host, [each["host"] for each in found])
        return found
