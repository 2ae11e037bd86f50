"""What happens to a run's process - kills, signals, standing still, no memory, a clock that jumps - costs no answer."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import resource
import shlex
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llmops.cli import _told
from llmops.cli.exits import Exit
from llmops.stores.writer import CERTAIN_S
from tests.cli.command import PATIENCE_S, command_line, environment, llmops, start
from tests.faults.proxy import proxy
from tests.faults.running import (
    COMMAND,
    IN_FLIGHT,
    Process,
    answered,
    asked,
    calls,
    ended,
    figures,
    fill,
    running,
    shim,
    stop,
    wait_for,
)
from tests.model_server import running_model_server
from tests.postgres_server import PostgresServer
from tests.workplace import FILES, Workplace

N_CASES = 48
DELAY_MS = 60
NOT_COMMITTED = IN_FLIGHT + IN_FLIGHT * 250 // DELAY_MS  # in flight, or answered within the last 250 ms


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with running_model_server(delay_ms=DELAY_MS) as server:
        yield fill(Workplace(tmp_path, server), N_CASES)


def finish(place: Workplace) -> None:
    """Carry the run on to its end, undisturbed, by a process of its own."""
    done = llmops(*COMMAND, cwd=place.root, more=place.environment)
    assert done.returncode == 0, done.stderr


# --- kills ------------------------------------------------------------------------------------------------


def test_a_resume_that_is_killed_until_nothing_is_left_loses_nothing_F38(
    place: Workplace, tmp_path: Path, fault_seed: str
) -> None:
    draw = random.Random(fault_seed)
    fill(place, n_cases := 24)
    sent: list[str] = []
    committed: set[str] = set()
    n_kills = 0
    while len(committed) < n_cases:
        with running(place) as process:
            n_before, more = len(place.server.received), draw.randrange(1, 14)
            while process.poll() is None and len(place.server.received) < n_before + more:
                time.sleep(0.002)
            n_kills += process.poll() is None
            process.kill()
            process.communicate()
        again = asked(place)
        assert not committed & set(again), "asked again for what was committed"
        sent += again
        committed = answered(place)
    assert n_kills >= 2
    assert len(sent) - n_cases <= n_kills * NOT_COMMITTED
    finish(place)
    assert asked(place) == []
    left_alone = fill(Workplace(tmp_path / "left alone", place.server), n_cases)
    finish(left_alone)
    assert figures(place) == figures(left_alone)


def processes_of_session(session: int) -> list[int]:
    """Return the processes that a command and whatever it started are, those that have ended aside."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def test_nothing_is_left_to_send_anything_once_the_main_process_is_killed_F39(place: Workplace) -> None:
    with running(place, start_new_session=True) as process:
        wait_for(lambda: len(answered_by_server(place)) > IN_FLIGHT, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert processes_of_session(process.pid) == []
    n_sent = len(place.server.received)
    time.sleep(2.2)
    assert len(place.server.received) == n_sent


def answered_by_server(place: Workplace) -> list[str]:
    return [received.call_id for received in place.server.received if received.status == 200]


def is_delivering(session: int) -> bool:
    """Say whether a run has started the process that delivers."""
    with suppress(FileNotFoundError, ProcessLookupError):
        pids = processes_of_session(session)
        return any(b"\0sync\0" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
    return False


def test_a_delivery_that_outlives_its_run_asks_no_model_F39(place: Workplace) -> None:
    with proxy(None, "deaf") as mlflow:
        more = {**place.environment, "MLFLOW_TRACKING_URI": mlflow.uri}
        with start(*COMMAND[:2], cwd=place.root, more=more, start_new_session=True) as process:
            wait_for(lambda: is_delivering(process.pid), process)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            n_sent = len(place.server.received)
            mlflow.hang_up()
            deadline = time.monotonic() + PATIENCE_S
            while processes_of_session(process.pid):
                assert time.monotonic() < deadline, "the delivery never ended"
                time.sleep(0.05)
    assert n_sent == len(place.server.received) == N_CASES


# --- signals and terminals --------------------------------------------------------------------------------


def in_terminal(place: Workplace, **streams: int) -> tuple[Process, int]:
    """Start a run in a terminal of its own; return it and the terminal's other end."""
    ours, theirs = pty.openpty()

    def own_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = start(
        *COMMAND,
        cwd=place.root,
        more=place.environment,
        start_new_session=True,
        preexec_fn=own_terminal,
        **{"stdin": theirs, "stdout": theirs, "stderr": theirs, **streams},
    )
    os.close(theirs)
    return process, ours


@pytest.mark.parametrize("errors_go", ["to the terminal", "to a file"])
def test_a_closed_terminal_lets_what_is_in_flight_come_home_F42(
    place: Workplace, tmp_path: Path, errors_go: str
) -> None:
    place.server.delay_s = 0.3
    told = tmp_path / "told"
    with told.open("w") as file:
        streams = {"stderr": file.fileno()} if errors_go == "to a file" else {}
        process, terminal = in_terminal(place, **streams)
    with process:
        wait_for(lambda: len(place.server.received) > IN_FLIGHT, process)
        os.close(terminal)
        process.wait(PATIENCE_S)
    assert process.returncode == 128 + signal.SIGHUP
    assert "Traceback" not in told.read_text()
    assert errors_go != "to a file" or "run the same command again to go on" in told.read_text()
    came_home = asked(place)
    assert answered(place) == set(came_home)
    place.server.delay_s = 0
    finish(place)
    assert len(came_home) + len(asked(place)) == N_CASES


def test_a_run_under_nohup_goes_on_when_the_terminal_closes_F42(place: Workplace) -> None:
    command = shlex.join(command_line(*COMMAND))
    with subprocess.Popen(
        ["sh", "-c", f"trap '' HUP; exec {command}"],
        cwd=place.root,
        env=environment(**place.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: len(place.server.received) > IN_FLIGHT, process)
        process.send_signal(signal.SIGHUP)
        code, said = ended(process)
    assert code == 0, said
    assert len(asked(place)) == N_CASES


@pytest.mark.parametrize("rest", ["| head -n 1", "2>&- | cat", ">&- 2>&-"])
def test_a_reader_that_leaves_and_streams_that_are_closed_end_no_run_F42(place: Workplace, rest: str) -> None:
    place.server.delay_s = 0
    script = f"set -o pipefail; {shlex.join(command_line(*COMMAND))} {rest}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=place.root,
        env=environment(**place.environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(asked(place)) == N_CASES
    assert figures(place)["exact_match"].n == N_CASES


# --- standing still ---------------------------------------------------------------------------------------


def test_a_second_runner_sends_nothing_while_the_first_stands_still_on_sqlite_F43(place: Workplace) -> None:
    with running(place) as first:
        wait_for(lambda: len(place.server.received) > IN_FLIGHT, first)
        stop(first)
        n_sent = len(place.server.received)
        second = llmops(*COMMAND, cwd=place.root, more=place.environment)
        assert (second.returncode, len(place.server.received)) == (5, n_sent)
        assert f"pid {first.pid}" in second.stderr
        first.send_signal(signal.SIGCONT)
        code, said = ended(first)
    assert code == 0, said
    sent = asked(place)
    assert len(sent) == len(set(sent)) == N_CASES


@pytest.fixture
def team(place: Workplace, postgres: PostgresServer) -> Iterator[Workplace]:
    """Give the project with its store on a server."""
    url = postgres.new_database()
    place.url = url
    place.write("llmops.yaml", FILES["llmops.yaml"] + f"store: {{url: '{url}'}}\n")
    yield place
    postgres.drop(url)


def test_a_runner_that_wakes_after_another_took_its_run_sends_nothing_twice_F43_F50(
    team: Workplace, postgres: PostgresServer
) -> None:
    with running(team) as first:
        wait_for(lambda: len(answered(team)) > IN_FLIGHT, first)
        stop(first)
        before = answered(team)
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s",
            f"llmops % {first.pid}",
        )
        sent_by_first = set(asked(team))
        stood_still_since = time.monotonic()
        finish(team)
        sent_by_second = asked(team)
        time.sleep(max(0.0, stood_still_since + 1.1 * CERTAIN_S - time.monotonic()))
        first.send_signal(signal.SIGCONT)
        code, said = ended(first)
    assert code in {0, 5}, said
    assert "Traceback" not in said
    # What was on its way out when it stood still goes out; nothing else does.
    assert len(asked(team)) <= IN_FLIGHT, "sent again what the second runner has answered"
    assert not before & set(sent_by_second)
    assert len(sent_by_second) == len(set(sent_by_second))
    assert len(sent_by_first & set(sent_by_second)) <= NOT_COMMITTED
    assert {call.id for call in calls(team)} == answered(team)
    assert len(answered(team)) == N_CASES


# --- memory and clock -------------------------------------------------------------------------------------


def test_a_run_that_gets_no_memory_any_more_ends_by_itself_and_is_resumable_F44(place: Workplace) -> None:
    with running(place) as process:
        wait_for(lambda: len(answered(place)) > IN_FLIGHT, process)
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() // 2  # it keeps what it has and gets no more
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        code, said = ended(process)
    assert code in {0, 3}, said
    assert "Traceback" not in said
    before, committed = asked(place), answered(place)
    finish(place)
    assert not committed & set(asked(place))
    assert len(before) == len(set(before))
    assert figures(place)["exact_match"].n == N_CASES


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_no_memory_is_told_as_that_and_as_resumable_F44(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _told(error) == Exit.INCOMPLETE
    assert capsys.readouterr().err.startswith("error: out of memory; run the same command again to go on")


def test_a_clock_that_jumps_a_day_turns_no_time_round_and_no_order_F48(
    place: Workplace, tmp_path: Path
) -> None:
    clock = tmp_path / "jump"
    more = {"LD_PRELOAD": shim(), "FAULT_CLOCK": str(clock)}
    tomorrow, yesterday = str(86_400), str(-86_400)
    clock.write_text(tomorrow)
    with running(place, more) as process:
        wait_for(lambda: len(place.server.received) > IN_FLIGHT, process)
        clock.write_text(yesterday)
        code, said = ended(process)
    assert code == 0, said
    fill(place, N_CASES - 1)
    done = llmops(*COMMAND, cwd=place.root, more={**place.environment, **more})
    assert done.returncode == 0, done.stderr
    for call in calls(place):
        assert call.answered_at is not None and call.reply is not None
        assert call.answered_at >= call.created_at
        assert 0 < call.reply.latency_s < 60
    with place.journal() as journal:
        newer, older = journal.runs()
        assert newer.created_at < older.created_at
        assert (newer.n_cells, older.n_cells) == (N_CASES - 1, N_CASES)
        for run in (newer, older):
            assert run.finished_at is not None and 0 < run.wall_s < 600
            assert run.finished_at >= run.created_at
