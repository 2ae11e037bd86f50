"""The history of an experiment, prompt or chain: what ran when, on which versions, with which result.

Puts together what several sources tell of the same runs and says what changed from one line to the next; the face
of it in a terminal is here, the page is `history_page.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC
from itertools import chain
from typing import TYPE_CHECKING, Any

from llmops.definitions.base import short
from llmops.definitions.reference import FOLDERS
from llmops.definitions.release import AuditedRelease, Release
from llmops.records import Interval
from llmops.report import texts
from llmops.report.grids import Grid
from llmops.stores import tracking
from llmops.stores.entries import JOURNAL, Entry, Reading
from llmops.stores.shipment import RUN_FILE

if TYPE_CHECKING:
    from llmops.definitions.reference import Kind

MOST_METRICS = 3
FIRST = "first"
INTERVAL = "90% interval"
"""The level of every figure's interval; MLflow is not told it."""

_COMMIT_DIGITS = 7
_NUMBERS = frozenset({"USD", "cases"})
_KINDS = {"prompts": "prompt", "chains": "chain"}


@dataclass(frozen=True, slots=True)
class Line:
    """One variant of one run. changed: what is other than in the line of this variant before, `first` without one."""

    entry: Entry
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class History:
    """The lines of a name, newest first. n_older: lines that are left out. releases: moves of aliases, newest first."""

    kind: Kind
    name: str
    lines: tuple[Line, ...]
    n_older: int
    releases: tuple[Release, ...] = ()

    @property
    def title(self) -> str:
        """The name with its folder."""
        return f"{FOLDERS[self.kind]}/{self.name}"

    @property
    def n_runs(self) -> int:
        """How many runs the lines belong to."""
        return len({(line.entry.run_id, line.entry.began_ms) for line in self.lines})

    @property
    def metrics(self) -> list[str]:
        """The evaluators, those of the newest runs first."""
        return list(
            dict.fromkeys(reading.evaluator for line in self.lines for reading in line.entry.readings)
        )


def tell_history(
    kind: Kind, name: str, entries: Iterable[Entry], releases: Iterable[Release] = (), *, limit: int
) -> History:
    """Return the newest lines of a name, and the newest releases of it, or from it where it is an experiment.

    entries: as `merge` returns them, releases: in the order of their file; those of other names are left out.
    """
    lines = _lines([entry for entry in entries if entry.is_of(kind, name)])
    released = [release for release in releases if _is_from(release, kind, name)][::-1]
    return History(kind, name, tuple(lines[:limit]), max(0, len(lines) - limit), tuple(released[:limit]))


def _is_from(release: Release, kind: Kind, name: str) -> bool:
    if kind != "experiment":
        return (release.kind, release.name) == (kind, name)
    evidence = release.evidence if isinstance(release, AuditedRelease) else None
    return evidence is not None and evidence.experiment == name


# --- one list of several ----------------------------------------------------------------------------------


def merge(*sources: Iterable[Entry]) -> list[Entry]:
    """Return every variant of every run once, the run begun last first, whatever the order of the sources.

    Runs of one id are one when they were begun at the same time: a colleague's of the same experiment is another.

    What the journal says holds; what only MLflow knows (who, its numbers, its page) is added.
    """
    found: dict[tuple[str, int, str], list[Entry]] = defaultdict(list)
    for entry in chain(*sources):
        name = tracking.shorten(entry.variant, tracking.MAX_TAG, whole=RUN_FILE)  # as MLflow has it
        found[entry.run_id, entry.began_ms, name].append(entry)
    return sorted(map(_one, found.values()), key=_newest_first)


def _one(entries: Sequence[Entry]) -> Entry:
    best, *others = sorted(entries, key=_authority, reverse=True)
    for other in others:
        best = replace(
            best,
            sources=best.sources | other.sources,
            user=best.user or other.user,
            link=best.link or other.link,
            numbers=best.numbers or other.numbers,
        )
    return best


def _authority(entry: Entry) -> tuple[bool, int, str]:
    """The record itself before what was told of it, later revisions first, and among equals always the same one."""
    return JOURNAL in entry.sources, entry.revision, repr(replace(entry, sources=frozenset()))


def _newest_first(entry: Entry) -> tuple[int, str, int, str]:
    return -entry.began_ms, entry.run_id, entry.place, entry.variant


# --- what changed -----------------------------------------------------------------------------------------


def _lines(entries: Sequence[Entry]) -> list[Line]:
    before: dict[tuple[str, str], Entry] = {}
    lines = []
    for entry in reversed(entries):
        key = entry.experiment, entry.variant
        lines.append(Line(entry, changes(before[key], entry) if key in before else (FIRST,)))
        before[key] = entry
    return lines[::-1]


def changes(before: Entry, after: Entry) -> tuple[str, ...]:
    """Return in a word each what is other in the later of two lines; what is not known of both is not told."""
    evaluators = [
        {reading.evaluator: reading.identity for reading in entry.readings} for entry in (before, after)
    ]
    found = {
        _KINDS.get(after.definition.partition("/")[0], "outputs"): _version_of(before) != _version_of(after),
        "model": _differ(before.models, after.models),
        "dataset": (before.dataset, before.dataset_version) != (after.dataset, after.dataset_version),
        "evaluators": all(evaluators) and evaluators[0] != evaluators[1],
    }
    told = [word for word, is_other in found.items() if is_other]
    if before.identity != after.identity and not {*_KINDS.values(), "outputs", "model"} & set(told):
        told.insert(0, "parameters")
    return tuple(told)


def _version_of(entry: Entry) -> tuple[str, str]:
    return entry.definition, entry.definition_identity


def _differ(before: Mapping[str, str | None], after: Mapping[str, str | None]) -> bool:
    if before.keys() != after.keys():
        return True
    return any(before[name] and after[name] and before[name] != after[name] for name in after)


# --- cells ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, one cell a line. Those that hold numbers stand behind the others."""

    title: str
    cells: tuple[str, ...]
    is_number: bool = False

    @property
    def same(self) -> str | None:
        """The cell that all lines share, None where they differ, say nothing, or are one."""
        return self.cells[0] if len(self.cells) > 1 and len(set(self.cells)) == 1 and self.cells[0] else None


def names(history: History) -> list[Column]:
    """Return the columns that say which line it is."""
    entries = [line.entry for line in history.lines]
    return [
        Column("when (UTC)", tuple(when(entry) for entry in entries)),
        Column("run", tuple(texts.one_line(entry.run_id) for entry in entries)),
        Column("variant", tuple(texts.one_line(entry.variant) for entry in entries)),
    ]


def when(entry: Entry) -> str:
    """Return when a run began, to the minute."""
    return f"{entry.began_at:%Y-%m-%d %H:%M}"


def result(history: History, metric: str) -> list[Column]:
    """Return the columns of one evaluator: its figure never without interval and n."""
    found = [reading_of(line.entry, metric) for line in history.lines]
    return [
        Column(
            texts.one_line(metric),
            tuple("" if one is None else texts.quantity(metric, one.value) for one in found),
            is_number=True,
        ),
        Column(INTERVAL, tuple(interval_text(one) for one in found), is_number=True),
        Column(
            "n", tuple("" if one is None or one.n is None else f"{one.n:,}" for one in found), is_number=True
        ),
    ]


def reading_of(entry: Entry, metric: str) -> Reading | None:
    """Return what an evaluator came to, None where it did not judge."""
    return next((reading for reading in entry.readings if reading.evaluator == metric), None)


def interval_text(reading: Reading | None) -> str:
    """Return the interval of a figure, empty where there is none."""
    if reading is None or reading.low is None or reading.high is None:
        return ""
    return texts.interval(Interval(low=reading.low, high=reading.high, level=0.9))


def tried(history: History) -> list[Column]:
    """Return the columns that say what was tried, and at what cost."""
    entries = [line.entry for line in history.lines]
    return _columns(
        {
            "definition": [texts.one_line(entry.definition) for entry in entries],
            "version": [_version(entry, history) for entry in entries],
            "model": [_models(line) for line in history.lines],
            "USD": [texts.usd(entry.cost_usd) for entry in entries],
        }
    )


def circumstances(history: History) -> list[Column]:
    """Return the columns that say on what a run was made, how far it came, by whom, and who has it."""
    entries = [line.entry for line in history.lines]
    return _columns(
        {
            "dataset": [texts.one_line(f"{entry.dataset} {entry.dataset_version}") for entry in entries],
            "commit": [_commit(entry) for entry in entries],
            "status": [texts.one_line(entry.status) for entry in entries],
            "by": [texts.one_line(entry.user or "") for entry in entries],
            "in": ["both" if len(entry.sources) > 1 else next(iter(entry.sources)) for entry in entries],
            "cases": ["" if entry.n_cases is None else f"{entry.n_cases:,}" for entry in entries],
        }
    )


def _columns(cells: Mapping[str, Sequence[str]]) -> list[Column]:
    return [
        Column(title, tuple(found), is_number=title in _NUMBERS)
        for title, found in cells.items()
        if any(found)
    ]


def _version(entry: Entry, history: History) -> str:
    """Return the identity of what the history is of, with the number it has in MLflow."""
    name = history.name if history.kind == "prompt" else entry.definition.removeprefix("prompts/")
    identity = entry.prompts.get(name, "") if history.kind == "prompt" else entry.definition_identity
    number = entry.numbers.get(name)
    return texts.one_line((identity or entry.definition_identity) + (f" v{number}" if number else ""))


def _models(line: Line) -> str:
    """Return the models by name, with their identity where it changed."""
    models = line.entry.models
    known = {name: identity if "model" in line.changed else None for name, identity in models.items()}
    return texts.one_line(", ".join(f"{name} {key}" if key else name for name, key in known.items()))


def _commit(entry: Entry) -> str:
    if not entry.commit:
        return ""
    return texts.one_line(entry.commit[:_COMMIT_DIGITS] + ("+" if entry.dirty else ""))


def changed(history: History) -> Column:
    """Return what is other than in the line of the same variant before."""
    return Column("changed", tuple(", ".join(line.changed) for line in history.lines))


def extent(history: History) -> str:
    """Return how much is shown."""
    n = texts.count(len(history.lines), "line")
    return f"{n} of {texts.count(history.n_runs, 'run')}, newest first"


def left_out(history: History) -> str:
    """Return how many older lines there are, and how to see them; empty where all are shown."""
    if not history.n_older:
        return ""
    whole = len(history.lines) + history.n_older
    return f"{texts.count(history.n_older, 'older line')} left out: --limit {whole} shows them"


# --- tables -----------------------------------------------------------------------------------------------


def shared(history: History) -> list[tuple[str, str]]:
    """Return what is the same in all lines, by its title."""
    columns = (*tried(history), *circumstances(history))
    return [(column.title, column.same) for column in columns if column.same is not None]


def results_grid(history: History, n_metrics: int) -> Grid:
    """Return as many metrics side by side as are asked for, and name the others."""
    shown, rest = history.metrics[:n_metrics], history.metrics[n_metrics:]
    columns = [*names(history), *chain(*(result(history, metric) for metric in shown))]
    notes = (f"also measured: {', '.join(map(texts.one_line, rest))}",) if rest else ()
    return replace(_grid("What came of it", columns), notes=notes)


def tried_grid(history: History) -> Grid:
    """Return what was tried in each line, as far as it differs, and what changed."""
    _, run, variant = names(history)
    return _grid("What was tried", [run, variant, changed(history), *_differing(tried(history))])


def places_grid(history: History) -> Grid:
    """Return on what each run was made and by whom, as far as that differs; empty where it does not."""
    _, run, _ = names(history)
    columns = _differing(circumstances(history))
    grid = _grid("On what, and by whom", [run, *columns])
    return replace(grid, rows=tuple(dict.fromkeys(grid.rows)) if columns else ())


def releases_grid(history: History) -> Grid:
    """Return who let which alias point at what, when and why."""
    titles = ("when (UTC)", "alias", "version", "stage", "approved by", "why")
    rows = tuple(tuple(map(texts.one_line, _released(release))) for release in history.releases)
    return Grid("What was released", titles, rows, n_names=len(titles))


def _released(release: Release) -> tuple[str, ...]:
    version = f"{release.name} {short(release.identity)}"
    if not isinstance(release, AuditedRelease):
        return "", release.alias, version, "", "", ""
    why = f"{release.action}: {release.reason}" if release.action == "rollback" else release.reason
    at = f"{release.created_at.astimezone(UTC):%Y-%m-%d %H:%M}"
    return at, release.alias, version, release.stage, release.approver, why


def _differing(columns: Iterable[Column]) -> list[Column]:
    return [column for column in columns if column.same is None]


def _grid(title: str, columns: Sequence[Column]) -> Grid:
    rows = tuple(zip(*(column.cells for column in columns), strict=True))
    n_names = sum(not column.is_number for column in columns)
    return Grid(title, tuple(column.title for column in columns), rows, n_names=n_names)


# --- a terminal -------------------------------------------------------------------------------------------


def history_text(history: History, *, width: int = 80, colour: bool = False, ascii_only: bool = False) -> str:
    """Return the history as tables, with what all lines share said once above, and as many metrics as fit."""
    from llmops.report.terminal import Page

    page = Page(width, colour=colour, ascii_only=ascii_only)
    page.add_line(f"{texts.one_line(history.title)}: {extent(history)}", "bold")
    if same := [f"{title} {cell}" for title, cell in shared(history)]:
        page.add_line(f"the same in all: {'; '.join(same)}", "dim")
    counts = range(min(MOST_METRICS, len(history.metrics)), 0, -1) or [0]
    results = [results_grid(history, n) for n in counts]
    page.add_grid(next(filter(page.has_room, results), results[-1]))
    page.add_grid(tried_grid(history))
    page.add_grid(places_grid(history))
    page.add_grid(releases_grid(history))
    if history.n_older:
        page.add_line("")
        page.add_line(left_out(history), "dim")
    return page.text()


# --- a record ---------------------------------------------------------------------------------------------


def history_record(history: History) -> dict[str, Any]:
    """Return the history as plain JSON values."""
    return {
        "kind": history.kind,
        "name": history.name,
        "n_older": history.n_older,
        "lines": [_line_record(line) for line in history.lines],
        "releases": [release.model_dump(mode="json") for release in history.releases],
    }


def _line_record(line: Line) -> dict[str, Any]:
    entry = asdict(line.entry)
    entry["began_at"] = line.entry.began_at.isoformat()
    entry["sources"] = sorted(entry["sources"])
    return {**entry, "changed": list(line.changed)}
