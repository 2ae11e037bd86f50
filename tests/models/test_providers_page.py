"""docs/providers.md: its table is what the conformance script prints, and its files check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmops.check.models import check_project
from llmops.definitions.workspace import load_workspace
from llmops.models import PROVIDERS
from tests.models.conformance import table

if TYPE_CHECKING:
    from tests.model_server import ModelServer

PAGE = Path(__file__).parent.parent.parent / "docs" / "providers.md"
TABLE = re.compile(r"(?<=<!-- conformance -->\n)(.*?)(?=<!-- /conformance -->)", re.DOTALL)
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_table_is_what_the_conformance_script_prints(
    model_server: ModelServer, request: pytest.FixtureRequest
) -> None:
    printed = table(model_server)
    text = PAGE.read_text(encoding="utf-8")
    if request.config.getoption("--update-golden"):
        text = TABLE.sub(lambda _: printed, text)
        PAGE.write_text(text, encoding="utf-8")
    (shown,) = TABLE.findall(text)
    assert shown == printed, "--update-golden rewrites it"


def test_every_provider_has_a_section() -> None:
    sections = re.findall(r"^## `(\w+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(sections) == sorted(PROVIDERS)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_files_shown_are_right(block: str, tmp_path: Path) -> None:
    (tmp_path / "llmops.yaml").write_text(block, encoding="utf-8")
    workspace = load_workspace(tmp_path)
    assert check_project(workspace) == []
    assert workspace.project.models
