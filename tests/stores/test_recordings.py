"""The file of recordings: the same bytes for the same replies, whole or not at all, and nothing else passes."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.errors import StoreError
from llmops.records import (
    EmbeddingRequest,
    Embeddings,
    ImagePart,
    Message,
    Reply,
    Request,
    TextPart,
    ToolCall,
    Usage,
)
from llmops.secrets import register
from llmops.stores import recordings
from llmops.stores.recordings import Recording, Recordings, read_recordings, recording_path

SHOWN = "experiments/recordings/x.jsonl.gz"


def recorded(number: int, text: str = "yes", **fields: object) -> Recording:
    key = hashlib.sha256(str(number).encode()).hexdigest()
    request = Request(messages=(Message(role="user", content=f"question {number}"),))
    return Recording(key, "m", "1" * 64, 0, request, Reply(text=text, **fields))  # type: ignore[arg-type]


def many(n: int = 4) -> Recordings:
    found = Recordings(SHOWN)
    for number in range(n):
        found.add(recorded(number))
    return found


def packed(*lines: str) -> bytes:
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)


def lines_of(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = recording_path(tmp_path, "x")
    many().write(path)
    return path


# --- what comes back --------------------------------------------------------------------------------------


@given(
    text=st.text(),
    latency=st.floats(0, 1e9),
    ttft=st.none() | st.floats(0, 1e9),
    tokens=st.integers(0, 2**53),
    arguments=st.text(),
)
def test_a_reply_comes_back_as_it_was_but_for_what_is_not_recorded(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    latency: float,
    ttft: float | None,
    tokens: int,
    arguments: str,
) -> None:
    reply = Reply(
        text=text,
        latency_s=latency,
        ttft_s=ttft,
        tpot_s=ttft,
        usage=Usage(input_tokens=tokens, output_tokens=tokens),
        tool_calls=(ToolCall(id="1", name="look", arguments=arguments),),
        raw=b"raw",
        request_id="of an account",
    )
    one = recorded(1)
    kept = Recordings(SHOWN)
    kept.add(Recording(one.key, "m", "1" * 64, 0, one.request, reply))
    path = tmp_path_factory.mktemp("there") / "x.jsonl.gz"
    kept.write(path)
    assert read_recordings(path, shown=SHOWN).find(one.key) == reply.model_copy(
        update={"raw": b"", "request_id": None}
    )


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_vectors_come_back_to_the_last_bit(numbers: list[float]) -> None:
    kept = Recordings(SHOWN)
    reply = Embeddings(vectors=(tuple(numbers),))
    kept.add(Recording("k", "m", "1" * 64, 0, EmbeddingRequest(inputs=("a",)), reply))
    assert kept.find("k") == reply


def test_an_image_is_recorded_by_its_hash_alone() -> None:
    image = f"data:image/png;base64,{'A' * 5000}"
    message = Message(role="user", content=(TextPart(text="what is it?"), ImagePart(image=image)))
    kept = Recordings(SHOWN)
    request = Request(messages=(message,))
    kept.add(Recording("k", "m", "1" * 64, 0, request, Reply(text="a cat")))
    (asked,) = kept.asked()
    parts = asked.request["messages"][0]["content"]
    assert parts[1]["image"] == f"data:image/png;base64,sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def test_every_text_is_scrubbed_names_of_fields_too() -> None:
    kept = Recordings(SHOWN)
    secret = "sk-recorded-0123"
    register(secret)
    message = Message(role="user", content=f"my {secret}")
    request = Request(messages=(message,), parameters={"stop": [secret]}, response_format={secret: 1})
    kept.add(Recording("k", "m", "1" * 64, 0, request, Reply(text=secret, model=secret)))
    (asked,) = kept.asked()
    reply = kept.find("k")
    assert secret not in str(asked) + str(reply)
    assert str(asked).count("***") == 3


# --- the same bytes ---------------------------------------------------------------------------------------


@given(st.randoms(use_true_random=False))
def test_the_order_of_calls_changes_no_byte(
    tmp_path_factory: pytest.TempPathFactory, order: random.Random
) -> None:
    root = tmp_path_factory.mktemp("there")
    numbers = list(range(8))
    order.shuffle(numbers)
    shuffled = Recordings(SHOWN)
    for number in numbers:
        shuffled.add(recorded(number))
    many(8).write(root / "a")
    shuffled.write(root / "b")
    assert (root / "a").read_bytes() == (root / "b").read_bytes()
    assert many(8).identity == shuffled.identity


def test_the_header_names_no_time_file_or_system(path: Path) -> None:
    assert path.read_bytes()[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"


def test_a_file_that_holds_the_same_is_not_written_again_however_it_is_packed(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1, mtime=77))
    before = path.read_bytes()
    assert not many().write(path)
    assert path.read_bytes() == before
    assert many(5).write(path)
    assert len(lines_of(path)) == 5


def test_a_changed_reply_changes_one_line(path: Path) -> None:
    before = set(lines_of(path))
    found = read_recordings(path, shown=SHOWN)
    found.add(recorded(2, "no"))
    assert found.write(path)
    assert len(before - set(lines_of(path))) == 1
    assert found.identity != many().identity


def test_a_file_that_cannot_be_written_stays_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    monkeypatch.setattr(recordings, "MOST_BYTES", 100)
    with pytest.raises(StoreError, match="split the experiment"):
        many(9).write(path)
    monkeypatch.undo()
    path.with_name(f".{path.name}.{os.getpid()}").mkdir()
    with pytest.raises(StoreError, match="were not written"):
        many(9).write(path)
    assert path.read_bytes() == before


# --- what is refused --------------------------------------------------------------------------------------

GOOD = json.loads(gzip.decompress(recordings._packed(many(1)._text())))
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (packed("no JSON"), f"{SHOWN}:1: no recording"),
        (packed(json.dumps(GOOD), DEEP), f"{SHOWN}:2: no recording"),
        (packed(json.dumps(GOOD), "[1]"), f"{SHOWN}:2: no recording"),
        (packed(json.dumps(GOOD), json.dumps(GOOD)), f"{SHOWN}:2: no recording, or out of order"),
        (packed(json.dumps(GOOD), "", json.dumps(GOOD)), f"{SHOWN}:2: no recording"),
        (packed(json.dumps({**GOOD, "reply": "yes"})), f"{SHOWN}:1: no recording"),
        (packed(json.dumps({**GOOD, "v": 2})), f"{SHOWN}:1: recorded by another version"),
        (gzip.compress(b"\xff\xfe", mtime=0), "not written by llmops"),
        (b"PK\x03\x04 a zip", "it cannot be read"),
        (b"", "cut short"),
        (packed(json.dumps(GOOD))[:-9], "cut short"),
        (packed(json.dumps(GOOD)) + packed("more"), "joined with something else"),
    ],
)
def test_what_is_no_file_of_recordings_is_refused_with_its_place(
    path: Path, content: bytes, why: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError) as raised:
        read_recordings(path, shown=SHOWN)
    assert why in str(raised.value)


def test_a_bomb_is_refused_at_the_cap_F68_S18(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MOST_BYTES", 10_000_000)
    deflater = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(deflater.compress(bytes(1_000_000)) for _ in range(1_000)) + deflater.flush()
    path.write_bytes(bomb)
    assert len(bomb) < 1_100_000
    with pytest.raises(StoreError, match="more than 9 MB of recordings"):
        read_recordings(path, shown=SHOWN)


def test_a_reply_that_is_none_is_told_with_its_line_when_it_is_asked_for(path: Path) -> None:
    lines = [json.loads(line) for line in lines_of(path)]
    lines[2]["reply"] = {"text": 5}
    path.write_bytes(packed(*map(json.dumps, lines)))
    found = read_recordings(path, shown=SHOWN)
    with pytest.raises(StoreError, match=rf"{SHOWN}:3: no reply"):
        found.find(lines[2]["key"])


def test_nothing_is_read_or_written_through_a_link_out_of_the_project_F68(tmp_path: Path) -> None:
    root, outside = tmp_path / "project", tmp_path / "outside"
    (root / "experiments").mkdir(parents=True)
    outside.mkdir()
    (root / "experiments" / "recordings").symlink_to(outside)
    with pytest.raises(StoreError, match="leads out of the project"):
        recording_path(root, "x")


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    path = recording_path(tmp_path, "x")
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="no file that recordings could be in"):
        read_recordings(path, shown=SHOWN)
