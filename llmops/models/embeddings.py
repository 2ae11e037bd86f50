"""Embeddings over HTTP: texts or images into JSON, one vector for each out of it, or an error.

Pure. Numbers are asked for as JSON floats: every compatible server gives those, while base64 is OpenAI's own
shortcut, and a journalled reply stays readable.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from llmops.definitions.base import without_none
from llmops.errors import ReplyError, RequestError
from llmops.models.wire import image_url, lacking, objects_only, text_of, usage_of
from llmops.records import EmbeddingRequest, Embeddings, ImagePart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmops.records import Usage


def encode_embeddings(request: EmbeddingRequest, model: str | None) -> dict[str, Any]:
    """Return the body of a request for vectors, of texts or of images.

    The purpose is left out: services that tell questions from passages have a field of their own for it.

    Raises RequestError for texts and images in one request, which no service takes.
    """
    images = [image_url(each) for each in request.inputs if isinstance(each, ImagePart)]
    if images and len(images) < len(request.inputs):
        raise RequestError("texts and images are embedded by requests of their own", sent=False)
    return without_none(
        {
            "model": model,
            "input": [{"image": image} for image in images] or list(request.inputs),
            "dimensions": request.dimensions,
            "encoding_format": "float",
        }
    )


def decode_embeddings(body: object, request: EmbeddingRequest) -> Embeddings:
    """Return the vectors of a whole body, in the order of the inputs.

    Raises ReplyError unless there is one a text, all of one length (the one asked for, if any), all finite.
    """
    fields = objects_only(body)
    found = fields.get("data")
    if not isinstance(found, list):
        raise lacking(fields, "data")
    vectors = _in_order(found, len(request.inputs))
    sizes = {len(vector) for vector in vectors}
    if len(sizes) > 1:
        raise ReplyError(f"the vectors differ in length: {min(sizes)} to {max(sizes)}")
    if request.dimensions not in {None, *sizes}:
        raise ReplyError(f"the vectors have {sizes.pop()} dimensions instead of {request.dimensions}")
    return Embeddings(
        vectors=vectors,
        model=text_of(fields, "model"),
        request_id=text_of(fields, "id") or None,
        usage=_usage(fields.get("usage")),
    )


def _in_order(found: Sequence[object], n: int) -> tuple[tuple[float, ...], ...]:
    if len(found) != n:
        raise ReplyError(f"the reply holds {len(found)} vectors for {n} inputs")
    by_index: dict[int, tuple[float, ...]] = {}
    for item in found:
        fields = item if isinstance(item, dict) else {}
        index = fields.get("index")
        if type(index) is not int or not 0 <= index < n or index in by_index:
            raise ReplyError(f"a vector of the reply has the index {str(index)[:40]!a}, not one of its own")
        by_index[index] = _vector(fields.get("embedding"), index)
    return tuple(by_index[index] for index in range(n))


def _vector(found: object, index: int) -> tuple[float, ...]:
    if not isinstance(found, list) or not found:
        raise ReplyError(f"vector {index} of the reply is no list of numbers")
    try:
        vector = tuple(map(float, found)) if set(map(type, found)) <= {int, float} else ()
    except OverflowError:
        vector = ()
    if not vector or not all(map(isfinite, vector)):
        raise ReplyError(f"vector {index} of the reply holds something that is no finite number")
    return vector


def _usage(found: object) -> Usage | None:
    return usage_of(found.get("prompt_tokens"), 0) if isinstance(found, dict) else None
