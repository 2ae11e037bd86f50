"""Images that prompts and cases show: looked at when they are read, known by their content from then on.

A case holds what is known of an image (`ImageFacts`), never the image: the hash stands in its identity, and reports,
stores and recordings stay small. The bytes are read again when a message is made. Nothing is decoded or fetched.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from llmops.definitions.spool import Spool
from llmops.definitions.trees import Tree
from llmops.errors import UsageError

MOST_BYTES = 10_000_000
"""Of one image; services take 5 to 50 MB, and nothing is gained beyond a few."""
_MOST_URL = 4 * (MOST_BYTES // 3 + 2) + 100
_SHORTEST_HIDDEN = 200
"""A data URL that is no longer is shown as it is."""

_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]{1,40});base64,", re.IGNORECASE)
_IN_TEXT = re.compile(r"data:image/[a-zA-Z0-9.+-]{1,40};base64,[A-Za-z0-9+/=]{100,}")
_KEYS = frozenset({"image", "type", "width", "height", "bytes", "sha256"})
_HEX = re.compile(r"[0-9a-f]{64}")

# Markers of JPEG that begin a frame, and with it hold height and width: ITU-T T.81, table B.1.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


class ImageFacts(NamedTuple):
    """What is known of an image. image: its path in the project, or `data` where it came as a data URL."""

    image: str
    type: str
    width: int
    height: int
    bytes: int
    sha256: str

    def value(self) -> dict[str, Any]:
        """Return it as a case holds it."""
        return self._asdict()


def is_image(value: object) -> bool:
    """Say whether a value is what a case holds of an image."""
    if not isinstance(value, Mapping) or value.keys() != _KEYS:
        return False
    texts = all(isinstance(value[key], str) for key in ("image", "type", "sha256"))
    numbers = all(type(value[key]) is int and value[key] > 0 for key in ("width", "height", "bytes"))
    return texts and numbers and _HEX.fullmatch(value["sha256"]) is not None


def image_problem(value: object) -> str | None:
    """Return why a value is no image of a case, None where it is one."""
    if is_image(value):
        return None
    return "no image; its dataset declares it, as in `inputs: {picture: image}`"


def described(value: Mapping[str, Any]) -> str:
    """Return an image in words: its kind, size and hash."""
    place = "" if value["image"] == "data" else f"{value['image']}, "
    size = f"{value['width']}x{value['height']}, {value['bytes']:,} bytes"
    return f"[image {place}{value['type']}, {size}, sha256:{value['sha256'][:12]}]"


def described_url(url: str) -> str:
    """Return the image of a data URL in words; one that is none in few."""
    with suppress(ValueError):
        return described(_facts("data", _decoded(url)).value())
    return f"[image, {len(url):,} characters]"


def without_images(value: Any) -> Any:
    """Return plain data in which words stand for each image, those that are written out in a text too."""
    if isinstance(value, str):
        if len(value) <= _SHORTEST_HIDDEN or ";base64," not in value:
            return value
        return _IN_TEXT.sub(lambda found: described_url(found[0]), value)
    if isinstance(value, Mapping):
        if is_image(value):
            return described(value)
        return {key: without_images(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_images(item) for item in value]
    return value


class ImageStore:
    """Where the images of a project can be read again, by the hash of their content."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Tree, str]] = {}
        self._urls: dict[str, tuple[int, int]] = {}
        self._spool: Spool | None = None

    def add_file(self, facts: ImageFacts, tree: Tree) -> None:
        """Remember in which tree an image stands."""
        self._files.setdefault(facts.sha256, (tree, facts.image))

    def add_data(self, facts: ImageFacts, data: bytes) -> None:
        """Lay an image aside that stands in no file."""
        if facts.sha256 not in self._urls:
            self._spool = self._spool or Spool()
            self._urls[facts.sha256] = (self._spool.write(data), len(data))
            self._spool.flush()

    def lacks(self, value: Mapping[str, Any]) -> bool:
        """Say whether an image is known by its hash alone: it came as a data URL, and not here."""
        return value["image"] == "data" and value["sha256"] not in {**self._urls, **self._files}

    def read(self, value: Mapping[str, Any], tree: Tree) -> bytes:
        """Return the bytes of an image. tree: where it is looked for when nobody has read it here before.

        Raises UsageError when it is not at hand any more, or another.
        """
        sha256, path = value["sha256"], value["image"]
        if sha256 in self._urls and self._spool is not None:
            return self._spool.read(*self._urls[sha256])
        if self.lacks(value):
            raise UsageError(
                f"image {sha256[:12]} is not at hand: it came as a data URL that no case has now"
            )
        place, path = self._files.get(sha256, (tree, path))
        data = _read(place, path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UsageError(f"{path} has changed since its case was read; run again")
        return data


class Images:
    """The images of one tree. store: shared by all trees of a project. read_cases: reads all cases that show any."""

    def __init__(self, tree: Tree, store: ImageStore, read_cases: Callable[[], None] = lambda: None) -> None:
        self._tree = tree
        self._store = store
        self._read_cases = read_cases
        self._known: dict[str, ImageFacts] = {}

    def look_at(self, source: str, folder: str = "") -> ImageFacts:
        """Return what is known of the image at a path below a folder of the project, or in a data URL.

        Raises UsageError for one that cannot be read, is too large or is no image, and for other URLs.
        """
        if source[:5].lower() == "data:":
            return self._in_url(source)
        if "://" in source[:12]:
            raise UsageError(
                f"{source[:80]!r}: an image is a file of the project or a data URL; none is fetched"
            )
        path = f"{folder}/{source}" if folder else source
        if path not in self._known:
            self._known[path] = _checked(path, _read(self._tree, path))
            self._store.add_file(self._known[path], self._tree)
        return self._known[path]

    def data_url(self, value: Mapping[str, Any]) -> str:
        """Return an image as it goes into a message (UsageError when it is not at hand, or has changed)."""
        if self._store.lacks(value):
            self._read_cases()
        data = self._store.read(value, self._tree)
        return f"data:{_checked(value['image'], data).type};base64,{base64.b64encode(data).decode()}"

    def _in_url(self, source: str) -> ImageFacts:
        try:
            data = _decoded(source)
            facts = _facts("data", data)
        except ValueError as error:
            raise UsageError(f"the data URL holds {error}") from error
        said = _DATA_URL.match(source)
        if said is not None and said[1].lower().replace("jpg", "jpeg") != facts.type:
            raise UsageError(f"the data URL says {said[1]}, and holds {facts.type}")
        self._store.add_data(facts, data)
        return facts


def _read(tree: Tree, path: str) -> bytes:
    file = tree.open(path)
    if file is None:
        raise UsageError(f"there is no image {path} in {tree.label}")
    with file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path} is larger than {MOST_BYTES:,} bytes; scale it down")
    return data


def _decoded(url: str) -> bytes:
    head = _DATA_URL.match(url)
    if head is None:
        raise ValueError("no image: write data:image/...;base64,...")
    if len(url) > _MOST_URL:
        raise ValueError(f"more than {MOST_BYTES:,} bytes; scale it down")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("no base64") from error


def _checked(path: str, data: bytes) -> ImageFacts:
    try:
        return _facts(path, data)
    except ValueError as error:
        raise UsageError(f"{path} holds {error}") from error


def _facts(image: str, data: bytes) -> ImageFacts:
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes; scale it down")
    kind, (width, height) = _looked_at(data)
    return ImageFacts(image, kind, width, height, len(data), hashlib.sha256(data).hexdigest())


# --- signatures ---------------------------------------------------------------------------------------------


def _looked_at(data: bytes) -> tuple[str, tuple[int, int]]:
    """Return an image's type and size by its first bytes. Raises ValueError for any other data."""
    readers = {
        "image/png": (data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR", _png_size),
        "image/jpeg": (data.startswith(b"\xff\xd8\xff"), _jpeg_size),
        "image/gif": (data.startswith((b"GIF87a", b"GIF89a")), _gif_size),
        "image/webp": (data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp_size),
    }
    for kind, (is_it, size) in readers.items():
        if is_it:
            try:
                found = size(data)
            except (struct.error, IndexError, StopIteration) as error:
                raise ValueError(f"{kind} that is cut off") from error
            if 0 in found:
                raise ValueError(f"{kind} without a size")
            return kind, found
    raise ValueError("no image: PNG, JPEG, GIF and WebP are known")


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = next(at for marker, at in _segments(data) if marker in _FRAMES)
    height, width = struct.unpack_from(">HH", data, at + 3)
    return width, height


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each segment's marker and the place after it, up to the picture itself."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        yield marker, at + 2
        if marker in {0xD9, 0xDA}:
            return
        at += 2 if marker in _WITHOUT_LENGTH else 2 + struct.unpack_from(">H", data, at + 2)[0]


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        low, high, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        return 1 + low + (high << 16), 1 + low_height + (high_height << 16)
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
