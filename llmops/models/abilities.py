"""What is asked of a provider that it cannot do: refused before anything is sent, naming those that can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Collection

    from llmops.models.base import Ability


def refuse_unable(name: str, provider: str, has: Collection[Ability], needed: Collection[Ability]) -> None:
    """Raise RequestError unless a provider has all abilities needed. name: of the model that is asked."""
    lacking = sorted(set(needed) - set(has))
    if lacking:
        able = able_providers(lacking)
        instead = f"offered by {', '.join(able)}" if able else "no provider offers that"
        raise RequestError(
            f"model {name!r}: {provider} offers no {' and no '.join(lacking)}; {instead}",
            model=name,
            sent=False,
        )


def able_providers(abilities: Collection[Ability]) -> list[str]:
    """Return the names of our own providers that have all of these abilities."""
    from llmops.models import PROVIDERS, model_class  # the table stands above what it names

    return [provider for provider in PROVIDERS if set(abilities) <= set(model_class(provider).abilities)]
