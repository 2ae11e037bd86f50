"""How much memory it takes to be sent far too much: a process of its own, so that the server's is not counted.

python -m tests.faults.memory CLIENT BASE_URL      # prints a line of JSON: bytes at most, by kind and fault
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path

from llmops.errors import ReplyError
from llmops.models.base import Model
from llmops.records import EmbeddingRequest
from tests.faults.scene import EMBEDDINGS, STREAMED, WHOLE
from tests.model_server import ModelServer
from tests.models.conformance import complete, opened, user

FAULTS = {
    WHOLE: ("big-body", "gzip-bomb"),
    STREAMED: ("gzip-bomb", "sse-huge"),
    EMBEDDINGS: ("big-body", "gzip-bomb"),
}
_PROCESS = Path("/proc/self")


async def ask(kind: str, model: Model, text: str) -> None:
    if kind == EMBEDDINGS:
        await model.embed(EmbeddingRequest(inputs=(text,)), call_id=text, timeout_s=60)
    else:
        await complete(model, user(text))


async def most_bytes(kind: str, model: Model, fault: str) -> int:
    """Return by how much memory rises at most while the model is asked and answers too much."""
    gc.collect()
    (_PROCESS / "clear_refs").write_text("5", encoding="ascii")  # the peak is counted from here
    before = _kilobytes("VmHWM")
    try:
        await ask(kind, model, f"[[fault:{fault}]]")
    except ReplyError as error:
        if error.kind == "too_large":
            return 1024 * (_kilobytes("VmHWM") - before)
    raise AssertionError(f"{fault} was not too large")


def _kilobytes(name: str) -> int:
    lines = (_PROCESS / "status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


async def measure(client: str, base_url: str) -> dict[str, int]:
    server = ModelServer()
    server.base_url = base_url
    found = {}
    for kind, faults in FAULTS.items():
        model = opened(client, server, stream=kind == STREAMED)
        try:
            await ask(kind, model, "hello")  # imports and pools are not what is counted
            for fault in faults:
                found[f"{kind} {fault}"] = await most_bytes(kind, model, fault)
        finally:
            await model.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], sys.argv[2]))))
