"""What the HTTP protocols have in common: JSON out and in, tokens counted, bytes inflated, events told apart.

Pure: bytes and plain data in, values out, so all of it is tested without a network. The SDKs hand through
whatever a service says; here it is checked. What a body means is for `chat.py`, `stream.py` and `embeddings.py`.
"""

from __future__ import annotations

import json
import re
import zlib
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmops.errors import ReplyError, RequestError
from llmops.records import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmops.records import ImagePart

MOST_BYTES = 32 * 1024 * 1024
_MOST_LINE_BYTES = MOST_BYTES // 2  # a line is there twice until it ends, in the body and by itself
_INFLATED_BYTES = 256 * 1024  # at a time, so that a few bytes that stand for a gigabyte never are one
MOST_TOKENS = 10**8  # beyond any context there is: a count above it is a fault of the service

_LINE_END = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)  # a lone CR at the end may be half of a CRLF


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

# --- out --------------------------------------------------------------------------------------------------


def written(body: Mapping[str, Any]) -> bytes:
    """Return a body as it goes over the wire. Raises RequestError, before it does, for what JSON cannot hold."""
    try:
        return _encode(body).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestError(f"the request cannot be written as JSON: {error}", sent=False) from error


def in_path(name: str) -> str:
    """Return a name as one segment of a URL's path: RFC 3986, section 3.3."""
    return quote(name, safe="!$&'()*+,;=:@")


def image_url(part: ImagePart) -> str:
    """Return the `data:` URL of an image. Raises RequestError for any other: nobody fetches one for us."""
    if not part.image.startswith("data:image/"):
        raise RequestError("an image is sent as a data URL, data:image/...;base64,...", sent=False)
    return part.image


# --- in ---------------------------------------------------------------------------------------------------


def parse_json(data: bytes | str) -> object:
    """Return the JSON value of a body; bytes that are no UTF-8 become U+FFFD.

    Raises ReplyError for anything else, an empty body and nesting too deep included.
    """
    text = data.removeprefix(BOM_UTF8).decode("utf-8", "replace") if isinstance(data, bytes) else data
    if not text.strip():
        raise ReplyError("the reply is empty")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"the reply is not JSON: {error}") from error


def objects_only(body: object) -> dict[str, Any]:
    """Return a body that is a JSON object. Raises ReplyError for any other value."""
    if not isinstance(body, dict):
        raise ReplyError(f"the reply is a JSON {type(body).__name__} instead of an object")
    return body


def lacking(body: Mapping[str, Any], what: str) -> ReplyError:
    """Return the error for a body without what it should hold: the service may say why in it."""
    problem = f"an error: {clean(str(body['error']))[:300]}" if body.get("error") else f"no {what}"
    return ReplyError(f"the reply holds {problem}")


def typed(fields: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return a field that is of one kind or absent. Raises ReplyError for one of another kind."""
    value = fields.get(key)
    if value is not None and not isinstance(value, kind):
        raise ReplyError(f"{key} in the reply is a {type(value).__name__} instead of a {kind.__name__}")
    return value


def text_of(fields: Mapping[str, Any], key: str) -> str:
    """Return a field of text, empty where it is absent. Raises ReplyError for any other kind."""
    return clean(typed(fields, key, str) or "")


def usage_of(sent: object, made: object) -> Usage | None:
    """Return the tokens, or None when one count is none: an unknown cost must not look like a known one."""
    if type(sent) is not int or type(made) is not int:  # a bool is no count
        return None
    if min(sent, made) < 0 or max(sent, made) > MOST_TOKENS:
        return None
    return Usage(input_tokens=sent, output_tokens=made)


def clean(text: str) -> str:
    """Return text that UTF-8 and every database can hold; surrogates without a partner, and NUL, are U+FFFD.

    The raw reply keeps what this loses.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Body:
    """The bytes of a reply as far as they came, inflated, and never more than `limit` of them."""

    def __init__(self, encoding: str, limit: int = MOST_BYTES) -> None:
        if encoding not in ("", "identity", "gzip", "deflate"):
            raise ReplyError(f"the reply is compressed as {encoding}, which was not asked for")
        self._inflater = zlib.decompressobj(32 + zlib.MAX_WBITS) if encoding in ("gzip", "deflate") else None
        self._limit = limit
        self._data = bytearray()

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def start(self, n_bytes: int) -> bytes:
        """Return the first bytes, without a copy of all."""
        return bytes(self._data[:n_bytes])

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what a chunk holds, inflated, piece by piece. Raises ReplyError past the limit, keeping what fits."""
        for piece in self._inflated(chunk):
            room = self._limit - len(self._data)
            self._data += piece[:room]
            if len(piece) > room:
                raise _too_large("the reply", self._limit)
            yield piece

    def _inflated(self, chunk: bytes) -> Iterator[bytes]:
        if self._inflater is None:
            yield chunk
            return
        try:
            while piece := self._inflater.decompress(chunk, _INFLATED_BYTES):
                yield piece
                chunk = self._inflater.unconsumed_tail
        except zlib.error as error:
            raise ReplyError(f"the reply is not compressed as it says: {error}") from error


def _too_large(what: str, limit: int) -> ReplyError:
    error = ReplyError(f"{what} is larger than {limit} bytes")
    error.kind = "too_large"
    return error


class EventReader:
    """Server-sent events out of bytes, by the HTML standard: comments and events without data are nothing."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._n_waiting = 0
        self._name = ""
        self._data: list[str] = []
        self._is_begun = False

    def feed(self, chunk: bytes) -> Iterator[tuple[str, str]]:
        """Yield name and data of every event that the chunk completes. Raises ReplyError for one that is too large."""
        for line in self._lines(chunk):
            if not line:
                if self._data:
                    yield self._name, "\n".join(self._data)
                self._name, self._data = "", []
                continue
            text = line.decode("utf-8" if self._is_begun else "utf-8-sig", "replace")
            self._is_begun = True
            field, _, value = text.partition(":")
            if field == "data":
                self._data.append(value.removeprefix(" "))
            elif field == "event":
                self._name = value.removeprefix(" ")

    def _lines(self, chunk: bytes) -> list[bytes]:
        self._parts.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk and not self._parts[0].endswith(b"\r"):
            self._n_waiting += len(chunk)
            if self._n_waiting > _MOST_LINE_BYTES:
                raise _too_large("an event of the stream", _MOST_LINE_BYTES)
            return []  # joined only when a line ends: one event of many megabytes stays linear
        *lines, rest = _LINE_END.split(b"".join(self._parts))
        self._parts, self._n_waiting = [rest], len(rest)
        return lines
