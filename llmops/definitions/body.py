"""What stands below a verb that is more than a reference, with the templates and the verbs inside it.

Which verbs there are is `chain.py`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from llmops.definitions.base import Definition

if TYPE_CHECKING:
    from llmops.definitions.chain import Use


class Body(Definition):
    """What stands below a verb that is more than a reference."""

    def templates(self) -> Mapping[str, Any]:
        """Return the fields that are filled before the step is carried out, by key."""
        return {}

    def later(self) -> Iterator[Templated]:
        """Yield the templates that are filled while the step is carried out, where they stand below the verb."""
        yield from ()

    def uses(self) -> Iterator[Inner]:
        """Yield the verbs inside, which fill their own templates."""
        yield from ()


class Inner(NamedTuple):
    """A use inside the body of a verb: its key there, and the names that its templates see beside the chain's.

    key: `do`, or with points where it stands deeper: `when.0.do`; empty where the body itself says it.
    """

    key: str
    use: Use
    names: frozenset[str] = frozenset()

    @property
    def place(self) -> tuple[str | int, ...]:
        """Where it stands below the verb."""
        return tuple(int(part) if part.isdigit() else part for part in self.key.split(".") if part)


class Templated(NamedTuple):
    """A text in a step that is a template, where it stands below the step, and the names it sees beside the chain's."""

    location: tuple[str | int, ...]
    source: str
    names: frozenset[str] = frozenset()
