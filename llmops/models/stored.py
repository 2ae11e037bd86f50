"""What a service keeps of the chats it has answered, found again by the id of the call.

OpenAI's stored completions: a request that asks for it is kept with its metadata, and the list of those kept gives
each one whole. Pure; sending is left to `openai.py`. For calls whose outcome nobody learnt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmops.models.chat import decode_chat
from llmops.models.wire import lacking, objects_only

if TYPE_CHECKING:
    from llmops.records import Reply

_CALL = "llmops_call"


class NotStored(Exception):
    """The service keeps no such chat."""


def to_be_stored(call_id: str) -> dict[str, Any]:
    """Return what a chat request says besides, so that its reply is kept under the id of its call."""
    return {"store": True, "metadata": {_CALL: call_id}}


def listing(call_id: str) -> dict[str, str]:
    """Return what is asked of the list: the chats kept for one call, the first that was answered before others."""
    return {f"metadata[{_CALL}]": call_id, "limit": "1", "order": "asc"}


def decode_listed(body: object, *, tools: bool) -> Reply:
    """Return the first reply of a list. tools: whether the model was given any to call.

    Raises NotStored for an empty list, and ReplyError for what is none.
    """
    fields = objects_only(body)
    if not isinstance(fields.get("data"), list):
        raise lacking(fields, "list of stored completions")
    if not fields["data"]:
        raise NotStored
    return decode_chat(fields["data"][0], tools=tools)
