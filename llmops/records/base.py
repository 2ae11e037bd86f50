"""What all records have in common: they are frozen, and know neither NaN nor a field that nobody declared."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1
REPLAYED = "~replayed-"
"""In the id of a run or call that recordings answered, before the digits of their identity; no name holds a `~`."""


class Record(BaseModel):
    """Base of all records: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
