"""HTML as a reader sees it, in linear time whatever stands in it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmops.indexes.pages import read_page

PAGE = """<!doctype html><html><head><title> The
 Guide </title><style>p {color: red}</style><script>alert("<p>no</p>")</script></head>
<body><nav>Menu</nav><h1>Setup</h1><p>Install <b>it</b> &amp; run&nbsp;it.<p>Then stop.
<ul><li>one<li>two</ul><!-- hidden --><noscript>no</noscript><h2>End</h2>x &lt; y</body></html>"""


def test_headings_lists_and_paragraphs_stay_and_code_goes() -> None:
    title, text = read_page(PAGE)
    assert title == "The Guide"
    assert (
        text == "Menu\n\n# Setup\n\nInstall it & run it.\n\nThen stop.\n\n- one\n\n- two\n\n## End\n\nx < y"
    )


def test_a_page_without_a_body_or_any_tag_is_its_text() -> None:
    assert read_page("plain &amp; simple") == ("", "plain & simple")
    assert read_page("") == ("", "")
    assert read_page("<p>open <b>and") == ("", "open and")


def test_what_is_never_closed_hides_what_follows_as_in_a_browser() -> None:
    assert read_page("<p>seen</p><!-- never closed <p>unseen</p>")[1] == "seen"
    assert read_page("<p>seen</p><script>if (a) <p>unseen</p>")[1] == "seen"


HOSTILE = [
    "<!--",
    "<![CDATA[",
    '<a b="',
    "<",
    "</",
    "&#",
    "<a ",
    "<!",
    "<?",
    "<p>",
    "<title>",
    "<script>",
    "&lt",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_page_of_two_megabytes_does_not_hold_us_up_S18(piece: str) -> None:
    """In a process of its own, which is given a hundred times what it takes."""
    program = (
        "import sys; from llmops.indexes.pages import read_page; read_page(sys.argv[1] * int(sys.argv[2]))"
    )
    times = str(2_000_000 // len(piece))
    done = subprocess.run([sys.executable, "-c", program, piece, times], timeout=120, check=False)
    assert done.returncode == 0
