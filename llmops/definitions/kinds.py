"""Tables of kinds: what a name in a file stands for, from this package or from others, imported on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from llmops.errors import UsageError, nearest


@dataclass(frozen=True)
class Kinds:
    """One table of kinds. own: name to `module:Class`. group: of the entry points by which others add to it."""

    noun: str
    group: str
    own: Mapping[str, str]

    def known(self) -> dict[str, str]:
        """Return every name and its `module:Class`; a name of ours cannot be taken by another package."""
        from importlib.metadata import entry_points  # looks into every installed package

        others = {point.name: point.value for point in entry_points(group=self.group)}
        return {**others, **self.own}

    def load(self, name: str) -> Any:
        """Return the class behind a name.

        Raises UsageError for a name that is not in the table, and for a package that is not whole.
        """
        known = self.own if name in self.own else self.known()
        if name not in known:
            hint = nearest(name, known) or f"known {self.noun}s: {', '.join(sorted(known))}"
            raise UsageError(f"no {self.noun} is called {name!r}; {hint}")
        module, _, attribute = known[name].partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{self.noun} {name!r} cannot be loaded: {error}; is its package installed?"
            ) from error
