"""References: what they look like, what their parts are, and what can never be one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.reference import Reference, parse_reference

NAMES = st.text("abcXYZ019_.-", min_size=1, max_size=8).filter(lambda text: text not in {".", ".."})
ALIASES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True)
VERSIONS: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}),
    ALIASES.map(lambda alias: {"alias": alias}),
    st.text("0123456789abcdef", min_size=12, max_size=12).map(lambda identity: {"identity": identity}),
    st.sampled_from(["main", "HEAD~2", "v1.0", "origin/feature/x", "a1b2c3", "HEAD@{1}", ":/fix"]).map(
        lambda revision: {"revision": revision}
    ),
)


@given(NAMES, st.none() | NAMES, VERSIONS)
def test_a_reference_written_and_read_is_the_same(
    name: str, split: str | None, version: dict[str, str]
) -> None:
    reference = Reference(name, split, **version)
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("support", Reference("support")),
        ("support/test", Reference("support", "test")),
        ("support@production", Reference("support", alias="production")),
        ("support/test@git:main", Reference("support", "test", revision="main")),
        ("support@git:feature/new@2", Reference("support", revision="feature/new@2")),
        ("support@3f2a3f2a3f2a", Reference("support", identity="3f2a3f2a3f2a")),
        ("support@123456789012", Reference("support", identity="123456789012")),
        ("support@deadbeef", Reference("support", alias="deadbeef")),
        ("support@" + "a" * 64, Reference("support", identity="a" * 64)),
    ],
)
def test_the_split_stands_before_the_at_sign_and_the_version_after_it(
    text: str, reference: Reference
) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize("number", ["1", "7", "42", "12345678901"])
def test_a_number_is_refused_with_the_reason(number: str) -> None:
    with pytest.raises(ValueError, match="numbers differ between MLflow servers"):
        parse_reference(f"support@{number}")


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "a@", "/", "a/", "/a", "a//b", "a/b/c", "a b", "a\n", "a/b\n", "a@main\n"),
        *("a@git:", "a@git:-x", "a@git:--all", "a@git:a b", "a@git:a\n", "a@git:a\0", "a@svn:1"),
        *("a@Production!", "a@1.2", "a@" + "A" * 12 + "!", "ä", "a:b"),
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no reference|after @ stands"):
        parse_reference(text)


SPELLINGS = [
    *(
        "../x",
        "..",
        "../../etc/passwd",
        "a/../../x",
        "./x",
        "x/.",
        "x/..",
        "..\\x",
        "..\\..\\x",
        "\\\\host\\share",
    ),
    *(
        "/etc/passwd",
        "/proc/self/environ",
        "//host/share",
        "~/x",
        "~root",
        "C:\\x",
        "C:/x",
        "c:x",
        "file:///etc/passwd",
    ),
    *(
        "file://x",
        "http://h/x",
        "..%2fx",
        "%2e%2e/x",
        "%2e%2e%2fx",
        "..%5cx",
        "%00",
        "x%00",
        "x\0",
        "x\0.yaml",
    ),
    *(
        "\uff0e\uff0e/x",
        "\u2024\u2024/x",
        "..\u2215x",
        "..\u2044x",
        "x\u2028y",
        "x\ty",
        "x y/..",
        "$HOME/x",
        "${HOME}/x",
    ),
    *("x;y", "x|y", "`x`", "x*", "?", "<x", "x\r"),
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_no_spelling_of_a_path_is_a_name(text: str) -> None:  # S06
    with pytest.raises(ValueError, match=r"is no reference|after @ stands"):
        parse_reference(text)


def test_at_least_forty_spellings_of_a_path_are_tried() -> None:  # S06
    assert len(set(SPELLINGS)) >= 40
