"""Tokens of Microsoft Entra ID, for models that are reached without a key (`auth: entra`, extra `azure`).

azure-identity finds whoever is signed in: a service principal, a managed identity, `az login`. What it gives is
kept until shortly before it expires. Where a token may go is for `access.py`, what it opens for Azure.
"""

from __future__ import annotations

import asyncio
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llmops.errors import AccessError, UnavailableError, UsageError
from llmops.models.access import ENTRA
from llmops.secrets import Secret, clean_cause

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken
    from azure.identity.aio import DefaultAzureCredential

# Azure OpenAI, Foundry and model inference all take it; the inference SDK's own ml.azure.com is for older hosts.
SCOPE = "https://cognitiveservices.azure.com/.default"
MARGIN_S = (
    300.0  # a token this close to its end is not sent any more: clocks differ, and calls take their time
)
FETCH_S = 30.0


class EntraTokens:
    """The token of one model, fetched when it is first needed and again before it expires."""

    def __init__(self, model: str) -> None:
        if find_spec("azure.identity") is None:
            raise UsageError(
                f"model {model!r} signs in with Entra ID; install what that takes: "
                "pip install 'llmops-workbench[azure]'"
            )
        self._model = model
        self._credential: DefaultAzureCredential | None = None
        self._secret: Secret | None = None
        self._expires_at = 0.0
        self._fetching = asyncio.Lock()

    async def current(self) -> Secret:
        """Return a token that is good for some minutes yet.

        Raises AccessError where nobody is signed in, UnavailableError where the sign-in service does not answer.
        """
        async with self._fetching:  # one fetches for all that wait
            if self._secret is None or self._expires_at - time.time() < MARGIN_S:
                token = await self._fetch()
                self._secret = Secret(ENTRA, token.token)
                self._expires_at = token.expires_on
            return self._secret

    async def close(self) -> None:
        """Close the connections to the sign-in service, and forget the token."""
        credential, self._credential, self._secret = self._credential, None, None
        if credential is not None:
            await credential.close()

    async def _fetch(self) -> AccessToken:
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.identity.aio import DefaultAzureCredential

        if self._credential is None:
            self._credential = DefaultAzureCredential()
        try:
            async with asyncio.timeout(FETCH_S):
                return await self._credential.get_token(SCOPE)
        except ClientAuthenticationError as error:
            raise AccessError(
                f"model {self._model!r}: no one is signed in to Entra ID; sign in with az login, or set "
                "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET in the environment (azure-identity "
                "reads no .env), or run where a managed identity is",
                model=self._model,
                sent=False,
            ) from clean_cause(error)
        except (AzureError, TimeoutError) as error:
            raise UnavailableError(
                f"model {self._model!r}: Entra ID gave no token; check the network, and try again",
                model=self._model,
                sent=False,
            ) from clean_cause(error)
