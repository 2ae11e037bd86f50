"""What `llmops convert` says and prints, and that the page about it says the same."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.convert import FORMATS, Conversion
from llmops.convert.exports import EXPORTS
from tests.cli.inside import llmops_inside
from tests.convert.samples import FILES

PAGE = (Path(__file__).parents[2] / "docs" / "converting.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```yaml\n(---\n.*?)```", PAGE, re.DOTALL)
SHOWN = re.search(r"```console\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "llmops.yaml").write_text("", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "sample",
    [
        "github/summary.prompt.yml",
        "promptfoo/promptfooconfig.yaml",
        "promptflow/flow.dag.yaml",
        "evals/capitals.yaml",
    ],
)
def test_the_report_of_each_format_is_as_recorded(
    sample: str, root: Path, golden: Callable[[str, str], None]
) -> None:
    done = llmops_inside("convert", str(FILES / sample), cwd=root)
    assert (done.returncode, done.stderr) == (0, "")
    golden(f"convert_{sample.partition('/')[0]}.txt", done.stdout.replace(f"{FILES.as_posix()}/", ""))


def test_the_page_shows_what_is_printed(root: Path) -> None:
    assert EXAMPLE and SHOWN
    (root / "city.prompty").write_text(EXAMPLE[1], encoding="utf-8")
    for block in re.split(r"^\$ ", SHOWN[1], flags=re.MULTILINE)[1:]:
        command, _, shown = block.partition("\n")
        done = llmops_inside(*shlex.split(command)[1:], cwd=root)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(shown.partition("...")[0]), done.stdout


def test_the_page_names_every_format_and_export() -> None:
    headings = {
        line.removeprefix("## ").lower().replace(" ", "") for line in PAGE.splitlines() if line[:3] == "## "
    }
    assert {name.replace("-", "").replace("github", "githubmodels") for name in FORMATS} <= headings
    assert all(f"--to {name}" in PAGE for name in EXPORTS)


def test_json_is_the_record_and_nothing_else(root: Path) -> None:
    done = llmops_inside("convert", str(FILES / "prompty/weather.prompty"), "--json", cwd=root)
    record = Conversion.model_validate_json(done.stdout)
    assert record.files and record.notes and done.stderr == ""
    assert json.loads(done.stdout)["notes"][0].keys() == {"path", "line", "key", "fate", "how"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gone.prompty",), "no file"),
        (("llmops.yaml",), "empty"),
        (("x.py",), "none of them"),
        (("x.py", "--from", "prompti"), "did you mean 'prompty'"),
        (("x.py", "--from", "prompty", "--to", "mlflow"), "give one"),
        (("x.py", "--from", "prompty", "--name", "a/b"), "no name"),
        (("nothing", "--to", "promptfoo"), "no experiment"),
    ],
)
def test_wrong_usage_ends_in_words(arguments: tuple[str, ...], said: str, root: Path) -> None:
    (root / "x.py").write_text("hello", encoding="utf-8")
    done = llmops_inside("convert", *arguments, cwd=root)
    assert done.returncode == 2
    assert said in done.stderr, done.stderr
    assert not (root / "prompts").exists()


def test_a_second_conversion_of_the_same_file_writes_the_same(root: Path) -> None:
    path = str(FILES / "promptfoo/promptfooconfig.yaml")
    first = llmops_inside("convert", path, cwd=root)
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    again = llmops_inside("convert", path, "--force", cwd=root)
    assert first.stdout == again.stdout
    assert before == {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
