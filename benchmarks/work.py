"""One piece of work in a process of its own, so that its CPU and memory are its own: `python -m benchmarks.work`.

MODE is `bare` (a loop over the provider's client and nothing else), `sdk` (the same over the openai SDK), `aiohttp`
(the same requests by bare aiohttp) or `ours` (the run engine: call, journal, scores). Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks.projects import ASKED
from llmops.definitions.project import Limits, ModelDefinition
from llmops.models import open_model
from llmops.records import Message, Request


def request(n: int) -> Request:
    """Return the request that the benchmark project makes of case n."""
    text = f"{ASKED} case number {n}"
    return Request(messages=(Message(role="user", content=text),), parameters={"max_tokens": 8})


async def in_flight(n: int, concurrency: int, one: Callable[[int], Awaitable[object]]) -> None:
    """Do n things, so many at a time."""
    numbers = iter(range(n))

    async def work() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(work() for _ in range(concurrency)))


async def bare(n: int, concurrency: int, url: str, *, client: Literal["lean", "sdk"] = "lean") -> None:
    """Ask through the provider's client alone."""
    limits = Limits(concurrency=concurrency, timeout_s=120)
    definition = ModelDefinition(
        provider="openai", model="m", endpoint_env="BENCH_URL", limits=limits, client=client
    )
    model = open_model("default", definition, {"BENCH_URL": url})

    async def one(number: int) -> None:
        await model.complete(request(number), call_id=str(number), timeout_s=120)

    await one(-1)  # the client is made on the first call
    await in_flight(n, concurrency, one)
    await model.close()


async def over_aiohttp(n: int, concurrency: int, url: str) -> None:
    """Send the same bytes by bare aiohttp and parse the reply."""
    import aiohttp

    from llmops.models.openai import encode

    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(number: int) -> None:
            body = encode(request(number), "m", False)
            async with session.post(f"{url}/chat/completions", json=body) as response:
                json.loads(await response.read())

        await in_flight(n, concurrency, one)


def ours(root: Path) -> None:
    """Carry out the benchmark project."""
    from llmops.call.carrying import Settings
    from llmops.definitions.workspace import load_workspace
    from llmops.plan import Selection, plan_experiment
    from llmops.run import run_experiment
    from llmops.stores.journal import open_journal

    def utc_now() -> datetime:
        return datetime.now(UTC)

    workspace = load_workspace(root)
    journal = open_journal(workspace.project.store.url, root=root)
    plan = plan_experiment(workspace, "bench", journal, now=utc_now())
    with journal.hold(plan.run.id):
        result = asyncio.run(
            run_experiment(workspace, plan, journal, Selection(), Settings(os.environ, utc_now))
        )
    journal.close()
    if result.n_without_output or result.errors:
        raise SystemExit(f"{result.n_without_output} cells without an output: {dict(result.errors)}")


def main() -> None:
    """Do what the arguments say and print what it took."""
    mode, n, concurrency, where = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    started, cpu = time.perf_counter(), time.process_time()
    if mode == "ours":
        ours(Path(where))
    else:
        loops: dict[str, Callable[[int, int, str], Coroutine[None, None, None]]] = {
            "bare": bare,
            "sdk": partial(bare, client="sdk"),
            "aiohttp": over_aiohttp,
        }
        asyncio.run(loops[mode](n, concurrency, where))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "wall_s": time.perf_counter() - started,
                "cpu_s": time.process_time() - cpu,
                "peak_mb": usage.ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
