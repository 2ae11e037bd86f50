"""What `run` does for `--record` and `--replay only`: opens the file, and says what was written or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops.cli.session import Session, say
from llmops.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path

    from llmops.call.carrying import Result
    from llmops.call.replay import Replay
    from llmops.records import Run
    from llmops.stores.journal import Journal


def open_replay(session: Session, experiment: str) -> Replay:
    """Return what answers in place of an experiment's models; StoreError when its recordings are broken."""
    from llmops.call.replay import Replay
    from llmops.stores.recordings import read_recordings

    path, shown = _place(session, experiment)
    return Replay(read_recordings(path, shown=shown))


def record_replies(session: Session, journal: Journal, run: Run) -> None:
    """Write down what the journal has of a run's replies, and say how many, where, and how large."""
    from llmops.call.recording import record_run
    from llmops.report.texts import count
    from llmops.stores.recordings import read_recordings

    path, shown = _place(session, run.experiment)
    found = journal.find_run(run.id) or run
    recorded = record_run(journal, found, lambda: read_recordings(path, shown=shown), shown)
    if not recorded.recordings and not path.exists():
        say("nothing to record: no model but embedded was asked, or none has answered")
        return
    changed = "" if recorded.recordings.write(path) else ", unchanged"
    say(
        f"{count(len(recorded.recordings), 'recording')} in {shown}, {path.stat().st_size / 1000:,.1f} kB{changed}"
    )
    if recorded.n_failed:
        say(f"{count(recorded.n_failed, 'step')} without a reply, which no replay can repeat")


def tell_misses(replay: Replay, result: Result) -> None:
    """Say which recordings are missing, beyond the one that stands for all, and how to get them."""
    from llmops.report.texts import one_line

    n, told = result.errors.get(RecordingError.kind, (0, ""))
    if not n:
        return
    for message in replay.misses.values():
        if message not in told:
            say(f"    {one_line(message)}")
    say(
        f"where the keys are: `llmops run {result.run.experiment} --record`, and commit {replay.recordings.shown}"
    )


def _place(session: Session, experiment: str) -> tuple[Path, str]:
    from llmops.stores.recordings import recording_path

    path = recording_path(session.root, experiment)
    return path, path.relative_to(session.root).as_posix()
