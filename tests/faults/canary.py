"""A canary key in every place a key can be, a server that echoes it in every way, and a look at every byte written.

The scanner spells secrets by itself, so that a spelling which the product forgets is found; it reads databases,
Parquet and gzip besides plain bytes. `scan` returns what a score sheet shows.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import html
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from tests.cli.command import llmops
from tests.postgres_server import GUEST_PASSWORD
from tests.workplace import jsonl

KEYS = {
    "MODEL_KEY": "sk-canary/01+23=&<4>56789",
    "ENTRA": "eyJ.canary/entra+0123456789=",
    "MLFLOW_TRACKING_PASSWORD": "canary/ml+flow=&0123",
    "PGPASSWORD": GUEST_PASSWORD,
    "PROXY": "canary/pro+xy=0123",
}
"""One for each way a secret comes in: the environment, .env, a token, a header, a database, an address."""

ENCODINGS: Mapping[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "base64": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "percent": lambda text: quote(text, safe=""),
    "hex": lambda text: text.encode().hex(),
    "json": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "html": html.escape,
}


def _looked_for(key: str) -> dict[str, list[bytes]]:
    """Return what gives a key away, by encoding: of base64 the part that does not depend on what stands around."""
    inner = {name: encode(key) for name, encode in ENCODINGS.items()}
    found = {name: [inner[name]] for name in ("plain", "percent", "hex", "json", "html")}
    found["percent"].append(quote(key))
    found["percent"] += [text.replace("%2F", "%2f").replace("%2B", "%2b") for text in found["percent"]]
    found["hex"].append(key.encode().hex().upper())
    found["base64"], found["base64url"] = [], []
    for offset in range(3):
        padded = b"\0" * offset + key.encode()
        part = slice((offset * 8 + 5) // 6, len(padded) * 8 // 6)
        found["base64"].append(base64.b64encode(padded).decode()[part])
        found["base64url"].append(base64.urlsafe_b64encode(padded).decode()[part])
    return {name: [text.encode() for text in texts] for name, texts in found.items()}


@dataclass(frozen=True)
class Hit:
    """A secret that got out."""

    surface: str
    secret: str
    encoding: str


@dataclass
class Scan:
    """What was looked at. surfaces: bytes of each. echoes: how often the server gave the key back, by way.

    n_cut: secrets that the masks stand for in all surfaces: without them nothing was tried.
    """

    surfaces: dict[str, int] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    echoes: Counter[str] = field(default_factory=Counter)
    n_cut: int = 0
    encodings: tuple[str, ...] = tuple(ENCODINGS)

    def look(self, surface: str, data: bytes) -> None:
        """Look through what one surface has."""
        self.surfaces[surface] = self.surfaces.get(surface, 0) + len(data)
        self.n_cut += data.count(b"***")
        for name, key in KEYS.items():
            for encoding, spellings in _looked_for(key).items():
                if any(spelling in data for spelling in spellings):
                    self.hits.append(Hit(surface, name, encoding))

    def look_into(self, surface: str, path: Path) -> None:
        """Look through a file as it is and as whoever can read its kind sees it."""
        for data in _contents(path):
            self.look(surface, data)


def _contents(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield data
    if path.suffix == ".gz":
        yield gzip.decompress(data)
    elif path.suffix == ".parquet":
        yield from _texts_of_parquet(path)
    elif data.startswith(b"SQLite format 3\0"):
        yield from _texts_of_sqlite(path)


def _texts_of_parquet(path: Path) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    yield "\n".join(table.column_names).encode()
    for row in table.to_pylist():
        yield "\n".join(map(str, row.values())).encode()


def _texts_of_sqlite(path: Path) -> Iterator[bytes]:
    """Yield each value: in the file, a long one is cut where a page ends."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        names = [
            name.decode()
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for name in names:
            for row in connection.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - a table's own name
                yield b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in row)


# --- a server that echoes ---------------------------------------------------------------------------------


def _reply(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage, **more}


def _error(status: int, headers: Mapping[str, str] | None = None, **fields: Any) -> web.Response:
    return web.json_response({"error": {"message": "no", **fields}}, status=status, headers=headers)


def _header(text: str) -> str:
    return text.replace("\n", " ")


def _filtered(category: str) -> dict[str, Any]:
    return {"content_filter_result": {category: {"filtered": True}}}


WAYS: Mapping[str, Callable[[str], web.Response]] = {
    "text": lambda told: web.json_response(_reply(f"your key is {told}, isn't it")),
    "model": lambda told: web.json_response(_reply("x", model=told)),
    "id": lambda told: web.json_response(_reply("x", id=told, system_fingerprint=told)),
    "request-id": lambda told: web.json_response(_reply("x"), headers={"x-request-id": _header(told)}),
    "headers": lambda told: web.json_response(_reply("x"), headers={"x-debug": told, "set-cookie": f"a={told}"}),
    "400-message": lambda told: _error(400, message=f"bad header Authorization: {told}"),
    "400-code": lambda told: _error(400, code=told, type=told, param=told),
    "400-nested": lambda told: _error(400, innererror={"detail": [told, {"request": {"headers": told}}]}),
    "400-plain": lambda told: web.Response(status=400, text=f"cannot read {told}"),
    "filter": lambda told: _error(400, code="content_filter", innererror=_filtered(told)),
    "500-html": lambda told: web.Response(status=500, text=f"<pre>{told}</pre>", content_type="text/html"),
    "503-reason": lambda told: web.Response(status=503, reason=_header(told), text="busy"),
    "no-json": lambda told: web.Response(text=f'{{"said": "{told}', content_type="application/json"),
    "no-reply": lambda told: web.json_response({"choices": told}),
    "content-type": lambda told: web.Response(body=b"{", headers={"Content-Type": f"text/plain; key={_header(told)}"}),
}  # fmt: skip
ENDING: Mapping[str, Callable[[str], web.Response]] = {
    "401": lambda told: _error(401, message=f"no such key: {told}"),
    "429": lambda told: _error(429, {"Retry-After": _header(told)}, message=told, code="insufficient_quota"),
    "redirect": lambda told: web.Response(status=307, headers={"Location": f"/login?key={_header(told)}"}),
}
"""Ways after which a model is asked no more: tried with all encodings at once."""

STREAMED = ("sse", "sse-error", "sse-pieces")


class EchoServer:
    """Answers `[[echo:WAY:ENCODING]]` in a prompt with the key that came along; a token server and an MLflow too."""

    def __init__(self) -> None:
        self.base_url = ""
        self.echoes: Counter[str] = Counter()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        _, _, marked = json.dumps(body["messages"]).partition("[[echo:")
        way, _, encoding = marked.partition("]]")[0].partition(":")
        if not marked:
            return web.json_response(_reply("plain"))
        every = " ".join(encode(key) for encode in ENCODINGS.values())
        told = every if encoding == "all" else ENCODINGS[encoding](key)
        self.echoes[way] += key in KEYS.values()
        if way in STREAMED:
            return await _stream(request, way, told)
        answer = {**WAYS, **ENDING}[way]
        return answer(told)

    async def token(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "access_token": KEYS["ENTRA"],
                "expires_on": "9999999999",
                "token_type": "Bearer",
                "resource": "x",
            }
        )

    async def tracking(self, request: web.Request) -> web.Response:
        """Refuse as an MLflow would that shows what it was sent."""
        told = request.headers.get("Authorization", "")
        password = base64.b64decode(told.removeprefix("Basic ")).decode().partition(":")[2]
        self.echoes["mlflow"] += password == KEYS["MLFLOW_TRACKING_PASSWORD"]
        said = {"error_code": "INTERNAL_ERROR", "message": f"{told} {password} {quote(password, safe='')}"}
        return web.json_response(said, status=400)


async def _stream(request: web.Request, way: str, told: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    size = 4 if way == "sse-pieces" else len(told)
    for at in range(0, len(told), size):
        delta = {"role": "assistant", "content": told[at : at + size]}
        event: dict[str, Any] = {"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta}]}
        await response.write(f"data: {json.dumps(event)}\n\n".encode())
    if way == "sse-error":
        await response.write(f"data: {json.dumps({'error': {'message': told, 'code': told}})}\n\n".encode())
        return response
    end = {"id": "x", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    await response.write(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode())
    return response


@contextmanager
def running_echo_server() -> Iterator[EchoServer]:
    """Give the server, in a thread of its own, until the block ends."""
    server, loop, ready = EchoServer(), asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", server.chat)
        application.router.add_get("/identity", server.token)
        application.router.add_route("*", "/api/{rest:.*}", server.tracking)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    try:
        assert ready.wait(10)
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


# --- a project that does everything -----------------------------------------------------------------------

MODEL = "provider: openai, model: m, limits: {attempts: 1}, endpoint_env: MODEL_URL"
PROJECT = f"""
models:
  default: {{{MODEL}, api_key_env: MODEL_KEY}}
  streamed: {{{MODEL}, api_key_env: MODEL_KEY, stream: true}}
  sdk: {{{MODEL}, api_key_env: MODEL_KEY, client: sdk}}
  signed: {{{MODEL}, auth: entra}}
  far: {{provider: openai, model: m, limits: {{attempts: 1}}, api_key_env: MODEL_KEY}}
"""
LEAK = """
import os
import sys


def leak(ticket: str) -> str:
    key = os.environ["MODEL_KEY"]
    print("printed", key)
    print("told", key, file=sys.stderr)
    if "raise" in ticket:
        raise RuntimeError(f"Illegal header value b'Bearer {key}'") from ValueError(key)
    return f"it is {key}"


def judge(output: str) -> dict[str, float]:
    raise ValueError(os.environ["MODEL_KEY"])
"""
CHAIN = """
inputs: {ticket: string}
steps: [{id: a, python: "leak:leak", with: {ticket: "{{ ticket }}"}}]
outputs: "{{ a.output }}"
"""
PROMPT = """
inputs: {ticket: string}
model: %s
messages: [{role: user, content: "%s {{ ticket }}"}]
"""
ECHO = """
dataset: tickets
variants:
  asked: {prompt: ask}
  streamed: {prompt: ask, model: streamed}
evaluators: [exact_match]
baseline: asked
"""
PASTE = """
dataset: tickets
variants:
  pasted: {prompt: pasted}
  leaky: {chain: leaky}
evaluators: [exact_match, {python: "leak:judge"}]
"""


def _files(store: str) -> dict[str, str]:
    ways = [f"[[echo:{way}:{encoding}]]" for way in (*WAYS, *STREAMED) for encoding in ENCODINGS]
    tickets = ["hello", "please raise", *ways]
    cases = [{"id": f"c{n}", "inputs": {"ticket": text}, "expected": "x"} for n, text in enumerate(tickets)]
    asking = {"ask": "default", "signed": "signed", "far": "far", "sdk": "sdk"}
    return {
        **{f"prompts/{name}.prompt.yaml": PROMPT % (model, "") for name, model in asking.items()},
        "prompts/pasted.prompt.yaml": PROMPT % ("default", KEYS["MODEL_KEY"]),
        "llmops.yaml": f"{PROJECT}store: {{url: {store}}}\n",
        "chains/leak.py": LEAK,
        "chains/leaky.chain.yaml": CHAIN,
        "datasets/tickets.dataset.yaml": "inputs: {ticket: string}\nexpected: {type: string}\n",
        "datasets/tickets.jsonl": jsonl(cases),
        "experiments/echo.experiment.yaml": ECHO,
        "experiments/paste.experiment.yaml": PASTE,
        ".env": f"MODEL_KEY={KEYS['MODEL_KEY']}\n",
    }


OURS = {".env", "pasted.prompt.yaml"}
"""Files of the project in which we have put a key ourselves."""


@dataclass
class Place:
    """A project on disk with a home and a folder for temporary files of its own."""

    folder: Path
    server: EchoServer
    scan: Scan
    store: str = "sqlite:///.llmops/store.db"
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("home", "tmp", "project"):
            (self.folder / name).mkdir(parents=True)
        for name, text in _files(self.store).items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    @property
    def root(self) -> Path:
        return self.folder / "project"

    def do(self, *arguments: str, code: int = 0, **more: str) -> None:
        """Carry out a command that ends with an exit code, and look at all it says."""
        environment = {
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "MODEL_URL": f"{self.server.base_url}/v1",
            "IDENTITY_ENDPOINT": f"{self.server.base_url}/identity",
            "IDENTITY_HEADER": "whoever-runs-1",
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        }
        if arguments[0] == "run":  # the others have it from .env
            environment["MODEL_KEY"] = KEYS["MODEL_KEY"]
        done = llmops("--debug", *arguments, cwd=self.root, more={**environment, **self.more, **more})
        name = next(word for word in arguments if not word.startswith("-"))
        for stream, text in (("stdout", done.stdout), ("stderr", done.stderr)):
            self.scan.look(f"{name}: {stream}", text.encode())
        if "Traceback" in done.stderr:
            self.scan.look("tracebacks", done.stderr.encode())
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stderr[-2000:]}"

    def look_at_files(self) -> None:
        """Look into everything that lies in the project, at home, and among temporary files."""
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.name not in OURS:
                self.scan.look_into(_surface(path.relative_to(self.folder)), path)


def _surface(path: Path) -> str:
    if path.parts[0] != "project":
        return path.parts[0]
    known = {"store.db": "journal", "mlflow.db": "MLflow database"}
    for name, surface in known.items():
        if path.name.startswith(name):
            return f"{surface}{path.name.removeprefix(name)}"
    top = path.parts[1]
    return {"mlruns": "MLflow artifacts", "mlartifacts": "MLflow artifacts"}.get(
        top, path.suffix if top == path.name else top
    )


def scan(folder: Path, *, blind: bool = False) -> Scan:
    """Return what every command left behind, on every surface, with a server that echoes every secret it gets.

    blind: let the product take nothing for a secret, which shows what the scanner finds then; no failures are made.
    """
    with running_echo_server() as server:
        found = Scan(echoes=server.echoes)
        place = Place(folder / "one", server, found)
        if blind:
            blinding = "from llmops import secrets\nsecrets._is_secret = lambda _: False\n"
            (folder / "sitecustomize.py").write_text(blinding)
            place.more["PYTHONPATH"] = str(folder)
        _experiment(place)
        _pages(place)
        if not blind:
            _sights(place)
            _failures(place)
        place.look_at_files()
        return found


def scan_team(folder: Path, url: str, dump: Callable[[], bytes]) -> Scan:
    """Return what is left behind where the journal is a team's, at a URL; dump: gives all that is in it afterwards."""
    with running_echo_server() as server:
        found = Scan(echoes=server.echoes)
        place = Place(folder / "team", server, found, url, {"PGPASSWORD": KEYS["PGPASSWORD"]})
        _team(place)
        place.look_at_files()
        found.look("PostgreSQL", dump())
        return found


def _team(place: Place) -> None:
    place.do("run", "paste", "--limit", "20", "--no-sync", code=3)
    place.do("doctor")
    place.do("report", "--json", code=3, PGPASSWORD=f"{KEYS['PGPASSWORD']}!")


def _experiment(place: Place) -> None:
    place.do("run", "echo", "--record", "--no-sync", code=3)
    place.do("run", "paste", "--case", "c0", "--case", "c1", "--json")
    assert (place.root / "mlflow.db").exists()


def _pages(place: Place) -> None:
    place.do("report", "echo", "--html", "page.html", "--rows", "rows.jsonl")
    place.do("report", "echo", "--rows", "rows.csv", "--json")
    place.do("report", "echo", "--rows", "rows.parquet")


def _sights(place: Place) -> None:
    place.do("report", "--history", "echo", "--html", "history.html")
    place.do("render", "pasted", "--input", "ticket=x")
    place.do("check", "--json")
    place.do("doctor")
    place.do("compare", "echo:asked", "echo:streamed", "--json")


def _failures(place: Place) -> None:
    """Do what ends in an error and its traceback."""
    for way in ENDING:
        for prompt in ("ask", "signed", "sdk"):
            place.do("run", f"prompts/{prompt}", "--input", f"ticket=[[echo:{way}:all]]", code=4)
    for refusing in ("127.0.0.1:9", place.server.base_url.removeprefix("http://")):
        proxy = f"http://me:{quote(KEYS['PROXY'], safe='')}@{refusing}"
        place.do("run", "prompts/far", "--input", "ticket=x", code=3, HTTPS_PROXY=proxy)
    tracking = {
        "MLFLOW_TRACKING_URI": place.server.base_url,
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": KEYS["MLFLOW_TRACKING_PASSWORD"],
    }
    place.do("sync", code=3, **tracking)
    userinfo = f"http://me:{quote(KEYS['MLFLOW_TRACKING_PASSWORD'], safe='')}@127.0.0.1:9"
    place.do("sync", code=3, MLFLOW_TRACKING_URI=userinfo)
    place.do("doctor", MLFLOW_TRACKING_URI=userinfo)
    (place.root / "llmops.yaml").write_text("models: [")
    place.do("run", "echo", code=2)
