"""The tests of a promptfoo configuration: inline, in files, in scenarios; lists of values multiplied out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import product
from typing import Any, NamedTuple

from llmops.convert.account import Page
from llmops.convert.job import Job
from llmops.definitions.documents import Document, Location, Mark
from llmops.definitions.flat_files import read_rows
from llmops.definitions.yaml_reader import plain_value
from llmops.errors import DefinitionError, RowsError, UsageError

MAX_TESTS = 100_000
_PROGRAM = "a program; llmops runs none that a configuration brings"
_CELL = re.compile(
    r"(?P<type>(?:not-)?[a-z][a-z-]*)(?:\((?P<threshold>[0-9.]+)\))?(?::\s*(?P<value>.*))?", re.DOTALL
)
_OWN = ("transform", "transformVars", "postprocess")


class Held(NamedTuple):
    """A value and where it stands."""

    value: Any
    page: Page
    place: Location


class Assertion(NamedTuple):
    """One assertion as it is told. is_cell: it is the text of one cell, not a mapping of keys."""

    told: Mapping[str, Any]
    page: Page
    place: Location
    is_cell: bool = False

    def at(self, key: str) -> Location:
        """Return where a key of it stands."""
        return self.place if self.is_cell else (*self.place, key)

    def keep(self, how: str, *keys: str) -> None:
        """Settle keys of it; without any, all of it that is left."""
        for place in [self.at(key) for key in keys] or [self.place]:
            self.page.keep(place, how)

    def approximate(self, how: str, *keys: str) -> None:
        """Settle as `keep` does."""
        for place in [self.at(key) for key in keys] or [self.place]:
            self.page.approximate(place, how)

    def drop(self, why: str, *keys: str) -> None:
        """Settle as `keep` does."""
        for place in [self.at(key) for key in keys] or [self.place]:
            self.page.drop(place, why)


@dataclass(frozen=True)
class Test:
    """One test with all that defaults and scenarios add to it."""

    variables: Mapping[str, Held] = field(default_factory=dict)
    asserts: tuple[Assertion, ...] = ()
    metadata: Mapping[str, Held] = field(default_factory=dict)
    description: Held | None = None
    threshold: Held | None = None

    def over(self, below: Test) -> Test:
        """Return this test on top of defaults."""
        return Test(
            {**below.variables, **self.variables},
            (*below.asserts, *self.asserts),
            {**below.metadata, **self.metadata},
            self.description or below.description,
            self.threshold or below.threshold,
        )


def read_tests(job: Job, page: Page) -> list[Test]:
    """Return every test, and settle what tests say beside their values and assertions."""
    default = _default(job, page)
    found: list[Test] = []
    for test in _told(job, page, page.value.get("tests"), ("tests",)):
        found += _expanded(test.over(default))
    scenarios = page.value.get("scenarios")
    for index, scenario in enumerate(scenarios if isinstance(scenarios, list) else ()):
        if isinstance(scenario, dict):
            found += _scenario(job, page, ("scenarios", index), scenario, default)
    if len(found) > MAX_TESTS:
        message = f"{len(found):,} tests; at most {MAX_TESTS:,}"
        raise DefinitionError(page.document.finding(("tests",), message))
    return found


def _default(job: Job, page: Page) -> Test:
    told = page.value.get("defaultTest")
    if isinstance(told, str):
        try:
            other = job.read_yaml(told.removeprefix("file://"))
        except (UsageError, DefinitionError) as error:
            page.drop(("defaultTest",), str(error).partition("\n")[0])
            return Test()
        page.keep(("defaultTest",), "read")
        return _test(job, other, (), other.value) if isinstance(other.value, dict) else Test()
    return _test(job, page, ("defaultTest",), told) if isinstance(told, dict) else Test()


def _scenario(job: Job, page: Page, place: Location, told: dict[str, Any], default: Test) -> Iterator[Test]:
    page.drop((*place, "description"), "a scenario has no name here")
    configs = list(_told(job, page, told.get("config"), (*place, "config")))
    tests = list(_told(job, page, told.get("tests"), (*place, "tests"))) or [Test()]
    for config, test in product(configs or [Test()], tests):
        yield from _expanded(test.over(config).over(default))


def _told(job: Job, page: Page, told: Any, place: Location) -> Iterator[Test]:
    """Yield tests told inline or by the files they stand in."""
    if isinstance(told, str):
        yield from _files(job, page, place, told)
    elif isinstance(told, dict) and isinstance(told.get("path"), str):
        yield from _files(job, page, (*place, "path"), told["path"])
    elif isinstance(told, list):
        for index, item in enumerate(told):
            at = (*place, index)
            if isinstance(item, dict) and not (set(item) == {"path"} or set(item) == {"path", "config"}):
                yield _test(job, page, at, item)
            else:
                yield from _told(job, page, item, at)


def _files(job: Job, page: Page, place: Location, told: str) -> Iterator[Test]:
    path = told.removeprefix("file://")
    if "://" in path or path.partition(":")[0].endswith(
        (".py", ".js", ".ts", ".mjs", ".cjs", ".xlsx", ".xls")
    ):
        page.drop(place, "llmops fetches nothing and runs no program to get tests")
        return
    try:
        found = [test for each in job.folder.matching(path) for test in _file(job, each)]
    except RowsError as error:
        page.drop(place, str(error.findings[0]))
        return
    except (UsageError, DefinitionError) as error:
        page.drop(place, str(error).partition("\n")[0])
        return
    page.keep(place, "read")
    yield from found


def _file(job: Job, path: str) -> Iterator[Test]:
    if path.endswith((".csv", ".jsonl")):
        if job.page(path) is not None:
            raise UsageError(f"{path} is read already")
        rows = list(read_rows(BytesIO(job.folder.read(path)), path))
        marks = [Mark(line, 1) for line, _ in rows]
        page = job.open(Document(job.folder.path(path), [row for _, row in rows], Mark(1, 1, marks)))
        for index, (_, row) in enumerate(rows):
            yield _row(page, index, row) if path.endswith(".csv") else _test(job, page, (index,), row)
        return
    page = job.read_yaml(path)
    yield from _told(job, page, page.value if isinstance(page.value, list) else [page.value], ())


# --- one test ---------------------------------------------------------------------------------------------------


def _test(job: Job, page: Page, place: Location, told: dict[str, Any]) -> Test:
    variables = told.get("vars")
    held = {
        name: _value(job, page, (*place, "vars", name), value)
        for name, value in (variables.items() if isinstance(variables, dict) else ())
    }
    if isinstance(variables, str):
        held = _from_file(job, page, (*place, "vars"), variables)
    metadata = told.get("metadata")
    for key in ("provider", "providers"):
        page.drop(
            (*place, key), "every variant meets every case; leave others out with `llmops run --variant`"
        )
    options = told.get("options")
    for key in options if isinstance(options, dict) else ():
        why = _PROGRAM if key in _OWN else "judges and programs of single tests are not taken over"
        page.drop((*place, "options", key), why)
    return Test(
        held,
        tuple(_asserts(page, (*place, "assert"), told.get("assert"))),
        {
            key: Held(value, page, (*place, "metadata", key))
            for key, value in (metadata.items() if isinstance(metadata, dict) else ())
        },
        Held(told["description"], page, (*place, "description")) if told.get("description") else None,
        Held(told["threshold"], page, (*place, "threshold")) if _is_number(told.get("threshold")) else None,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(job: Job, page: Page, place: Location, value: Any) -> Held:
    """Return a value, or what stands in the file it names."""
    if not isinstance(value, str) or not value.startswith("file://"):
        return Held(value, page, place)
    path = value.removeprefix("file://")
    try:
        if path.endswith((".py", ".js", ".ts", ".mjs", ".cjs")):
            raise UsageError(_PROGRAM)
        other, text = (
            job.read_text(path) if not path.endswith((".yaml", ".yml", ".json")) else _data(job, path)
        )
    except (UsageError, DefinitionError) as error:
        page.drop(place, str(error).partition("\n")[0])
        return Held("", page, place)
    page.keep(place, "read")
    return Held(text, other, ())


def _data(job: Job, path: str) -> tuple[Page, Any]:
    page = job.read_yaml(path)
    return page, page.value


def _from_file(job: Job, page: Page, place: Location, told: str) -> dict[str, Held]:
    held = _value(job, page, place, f"file://{told.removeprefix('file://')}")
    if not isinstance(held.value, dict):
        return {}
    return {name: Held(value, held.page, (*held.place, name)) for name, value in held.value.items()}


def _asserts(page: Page, place: Location, told: Any) -> Iterator[Assertion]:
    for index, item in enumerate(told if isinstance(told, list) else ()):
        at = (*place, index)
        if not isinstance(item, dict) or not isinstance(item.get("type"), str):
            page.drop(at, "no assertion of a type")
        elif item["type"] == "assert-set":
            page.approximate((*at, "type"), "its assertions, each for itself")
            page.drop((*at, "threshold"), "its assertions count each for itself")
            yield from _asserts(page, (*at, "assert"), item.get("assert"))
        else:
            yield Assertion(item, page, at)


def _row(page: Page, index: int, row: Mapping[str, Any]) -> Test:
    """Return the test in a row of a CSV, whose columns that begin with `__` mean more than values."""
    test = Test()
    variables: dict[str, Held] = {}
    metadata: dict[str, Held] = {}
    for column, cell in row.items():
        place = (index, column)
        text = str(cell)
        if column.startswith("__") and not text.strip():
            page.keep(place, "empty, and so nothing is written")
        elif column.startswith("__expected"):
            test = replace(test, asserts=(*test.asserts, _cell(page, place, text.strip())))
        elif column == "__description":
            test = replace(test, description=Held(text, page, place))
        elif column == "__threshold" and _is_number(value := plain_value(text) if text else None):
            test = replace(test, threshold=Held(value, page, place))
        elif column.startswith("__metadata:"):
            metadata[column.removeprefix("__metadata:").removesuffix("[]")] = Held(cell, page, place)
        elif column.startswith("__"):
            page.drop(place, "a column that llmops has nothing for")
        else:
            variables[column] = Held(cell, page, place)
    return replace(test, variables=variables, metadata=metadata)


def _cell(page: Page, place: Location, text: str) -> Assertion:
    """Return the assertion that a cell spells: `type(threshold): value`, or the text that must come."""
    found = _CELL.fullmatch(text)
    kind = {"fn": "javascript", "eval": "javascript", "grade": "llm-rubric"}.get(
        found["type"] if found else "", found["type"] if found else ""
    )
    if found is None or (found["value"] is None and kind not in {"is-json", "contains-json"}):
        return Assertion({"type": "equals", "value": text}, page, place, is_cell=True)
    told: dict[str, Any] = {"type": kind}
    if found["value"] is not None:
        is_list = kind.removeprefix("not-").removeprefix("i") in {"contains-all", "contains-any"}
        parts = [part.strip() for part in found["value"].split(",")]
        told["value"] = parts if is_list else found["value"]
    if found["threshold"]:
        told["threshold"] = plain_value(found["threshold"])
    return Assertion(told, page, place, is_cell=True)


def _expanded(test: Test) -> Iterator[Test]:
    """Yield a test for each combination of the values that stand in lists."""
    names = list(test.variables)
    choices = []
    for name in names:
        held = test.variables[name]
        many = (
            isinstance(held.value, list)
            and held.value
            and all(isinstance(v, str | int | float) for v in held.value)
        )
        choices.append(
            [Held(item, held.page, (*held.place, n)) for n, item in enumerate(held.value)] if many else [held]
        )
    for chosen in product(*choices):
        yield replace(test, variables=dict(zip(names, chosen, strict=True)))
