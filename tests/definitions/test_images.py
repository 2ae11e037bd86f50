"""What is known of an image: by its bytes and not its name, within bounds, and read again only if it is the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions import images as module
from llmops.definitions.images import (
    MOST_BYTES,
    Images,
    ImageStore,
    _looked_at,
    described,
    is_image,
    without_images,
)
from llmops.definitions.trees import WorkTree
from llmops.errors import UsageError
from tests.pictures import data_url, gif, jpeg, png, webp

KINDS = {
    "png": ("image/png", png),
    "gif": ("image/gif", gif),
    "jpeg": ("image/jpeg", jpeg),
    "webp extended": ("image/webp", lambda *size: webp(b"VP8X", *size)),
    "webp lossless": ("image/webp", lambda *size: webp(b"VP8L", *size)),
    "webp lossy": ("image/webp", lambda *size: webp(b"VP8 ", *size)),
}


@pytest.fixture
def images(tmp_path: Path) -> Images:
    (tmp_path / "a.png").write_bytes(png())
    return Images(WorkTree(tmp_path), ImageStore())


@pytest.mark.parametrize("kind", KINDS)
@given(width=st.integers(1, 4_000), height=st.integers(1, 4_000))
def test_type_and_size_stand_in_the_bytes(kind: str, width: int, height: int) -> None:
    told, make = KINDS[kind]
    if told != "image/png":  # whose rows are real, and take their time
        assert _looked_at(make(width, height)) == (told, (width, height))
    else:
        assert _looked_at(png(width % 50 + 1, height % 50 + 1)) == (told, (width % 50 + 1, height % 50 + 1))


@given(st.sampled_from(list(KINDS)), st.integers(0, 60))
def test_an_image_that_is_cut_off_is_none_or_has_its_size(kind: str, length: int) -> None:
    told, make = KINDS[kind]
    try:
        assert _looked_at(make()[:length]) == (told, (2, 3))
    except ValueError as error:
        assert str(error) in {f"{told} that is cut off", "no image: PNG, JPEG, GIF and WebP are known"}


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(data: bytes) -> None:
    try:
        _looked_at(b"\xff\xd8\xff" + data)
    except ValueError as error:
        assert "image/jpeg" in str(error)


def test_an_image_of_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="without a size"):
        _looked_at(gif(0, 3))


def test_what_is_known_of_a_file(images: Images) -> None:
    facts = images.look_at("a.png")
    assert facts.value() == {
        "image": "a.png",
        "type": "image/png",
        "width": 2,
        "height": 3,
        "bytes": len(png()),
        "sha256": hashlib.sha256(png()).hexdigest(),
    }
    assert is_image(facts.value())
    assert images.data_url(facts.value()) == data_url(png())


def test_a_name_does_not_make_an_image(images: Images, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"KEY=secret\n")
    with pytest.raises(UsageError, match=r"b\.png holds no image: PNG, JPEG, GIF and WebP are known"):
        images.look_at("b.png")
    (tmp_path / "c.txt").write_bytes(jpeg())
    assert images.look_at("c.txt").type == "image/jpeg"


@pytest.mark.parametrize(
    "source",
    ["../a.png", "/etc/passwd", "link.png", "folder/../../a.png", "%2e%2e/a.png", "..\\a.png", "a.png\0"],
)
def test_no_path_leads_out_of_the_project(tmp_path: Path, source: str) -> None:
    (tmp_path / "a.png").write_bytes(png())
    inside = tmp_path / "project"
    (inside / "folder").mkdir(parents=True)
    (inside / "link.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"path inside the project|leads out of the project"):
        Images(WorkTree(inside), ImageStore()).look_at(source)


@pytest.mark.parametrize(
    "source", ["http://127.0.0.1/a.png", "https://x/a.png", "file:///etc/passwd", "ftp://x"]
)
def test_no_url_is_fetched(images: Images, source: str) -> None:
    with pytest.raises(UsageError, match="none is fetched"):
        images.look_at(source)


def test_a_large_file_is_refused_unread(images: Images, tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.write(png())
        file.truncate(50_000_000_000)  # sparse: whoever read it all would have no memory left
    with pytest.raises(UsageError, match=r"large\.png is larger than 10,000,000 bytes"):
        images.look_at("large.png")


def test_a_large_data_url_is_refused(images: Images) -> None:
    with pytest.raises(UsageError, match="more than 10,000,000 bytes"):
        images.look_at(data_url(b"0" * (MOST_BYTES + 1)))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("data:image/png;base64,AAAA", "no image: PNG"),
        ("data:image/png;base64,%%%%", "no base64"),
        ("data:text/html;base64,AAAA", "no image: write"),
        ("data:image/png,raw", "no image: write"),
        (data_url(png(), "image/gif"), "says image/gif, and holds image/png"),
    ],
)
def test_a_data_url_holds_what_it_says(images: Images, url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        images.look_at(url)


def test_a_data_url_is_at_hand_again_by_its_hash(images: Images) -> None:
    first, second = (images.look_at(data_url(png(colour=colour))).value() for colour in (1, 2))
    assert images.data_url(second) == data_url(png(colour=2))
    assert images.data_url(first) == data_url(png(colour=1))
    assert len(str(first)) < 200


def test_an_image_of_another_process_is_found_by_its_path_alone(images: Images, tmp_path: Path) -> None:
    there, lost = images.look_at("a.png").value(), images.look_at(data_url(png(colour=9))).value()
    later = Images(WorkTree(tmp_path), ImageStore())
    assert later.data_url(there) == data_url(png())
    with pytest.raises(UsageError, match="not at hand"):
        later.data_url(lost)


def test_an_image_that_has_changed_is_not_shown_as_the_one_it_was(images: Images, tmp_path: Path) -> None:
    value = images.look_at("a.png").value()
    (tmp_path / "a.png").write_bytes(png(colour=7))
    with pytest.raises(UsageError, match=r"a\.png has changed since its case was read"):
        images.data_url(value)


def test_words_stand_for_images_in_what_people_read(images: Images) -> None:
    value = images.look_at("a.png").value()
    told = f"[image a.png, image/png, 2x3, {len(png()):,} bytes, sha256:{value['sha256'][:12]}]"
    assert described(value) == told
    url = data_url(png(40, 40) + b"\0" * 300)
    shown = without_images({"picture": value, "said": ["look:", f"see {url} there"], "short": "data:"})
    assert shown["picture"] == told
    assert shown["said"][1].startswith("see [image image/png, 40x40, ")
    assert shown["said"][1].endswith("] there")
    assert shown["short"] == "data:"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=400))
def test_other_texts_are_left_as_they_are(text: str) -> None:
    assert without_images([text]) == [text]


@pytest.mark.parametrize(
    "change", [{"sha256": "../x"}, {"width": 0}, {"bytes": True}, {"more": 1}, {"image": 3}]
)
def test_what_only_looks_like_an_image_is_none(images: Images, change: dict[str, object]) -> None:
    assert not is_image({**images.look_at("a.png").value(), **change})


def test_base64_of_the_largest_image_is_within_the_bound_of_a_url() -> None:
    assert len(data_url(b"")) + 4 * -(-MOST_BYTES // 3) <= module._MOST_URL
