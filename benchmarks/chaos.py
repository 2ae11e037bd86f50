"""The score sheet of `make chaos`: everything the world does to a run, and what became of the run.

The catalogue is the tests that name a fault, each drawn from the seed that stands beside it; kills, the limiter, MLflow
away and canary secrets are measured by the modules named for them. `python -m benchmarks.chaos [--seed N] [--kills N]
[PART...]`, PART one of the keys of `PARTS`; exits 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from benchmarks.kills import kill_and_compare
from benchmarks.limiter import PROMISED, storm
from benchmarks.outage import EXIT_WITHIN_S, MOST_SLOWER, run_without_mlflow
from tests.faults.canary import scan

KILLS_A_RUN = 10
ROOT = Path(__file__).parent.parent
FAULTS = {
    "F01": "429 with Retry-After in seconds",
    "F02": "429 with Retry-After as a date",
    "F03": "429 with retry-after-ms",
    "F04": "429 without a hint",
    "F05": "429 beyond the run's deadline",
    "F06": "Retry-After that is nonsense",
    "F07": "a limiter of 20 a second, 100 in flight",
    "F08": "quota used up",
    "F09": "408, 409 and 5xx once or twice",
    "F10": "5xx for the whole run",
    "F11": "a parameter the service refuses",
    "F12": "the request filtered",
    "F13": "the reply filtered",
    "F14": "a filter that did not run",
    "F15": "too long a context",
    "F16": "a reply cut at its length",
    "F17": "a key refused from the first call",
    "F18": "a model that is gone",
    "F19": "4xx with Retry-After",
    "F20": "truncated JSON, short body",
    "F21": "empty body, HTML, array, error in 200",
    "F22": "no choices",
    "F23": "null content, tool calls, a refusal",
    "F24": "a connection reset after sending",
    "F25": "refused, unknown host, TLS",
    "F26": "usage that is none",
    "F27": "text no database likes",
    "F28": "a body of 200 MB, a gzip bomb",
    "F29": "no first byte, a stall, a drip",
    "F30": "broken event streams",
    "F31": "a redirect elsewhere",
    "F32": "a redirect in a loop",
    "F33": "another model answers",
    "F34": "a key revoked in mid-run",
    "F35": "one of two deployments down",
    "F36": "answers late and out of order",
    "F37": "SIGKILL at any moment",
    "F38": "SIGKILL while resuming",
    "F39": "SIGKILL of the main process alone",
    "F40": "SIGTERM, the first Ctrl-C",
    "F41": "the second Ctrl-C",
    "F42": "SIGHUP, a broken pipe",
    "F43": "asleep and awake again",
    "F44": "out of memory",
    "F45": "a full disk",
    "F46": "fsync fails",
    "F47": "a read-only store",
    "F48": "a clock that jumps",
    "F49": "two runners of one run",
    "F50": "a lease holder that wakes too late",
    "F51": "a store locked by another",
    "F52": "a read that turns into a write",
    "F53": "a corrupt, older or newer store",
    "F54": "an SQLite with the WAL-reset race",
    "F55": "PostgreSQL restarts, crashes, is full",
    "F56": "MLflow away, stalled, failing",
}
_FAULT = re.compile(r"(?<![a-z0-9])f(\d\d)(?!\d)", re.IGNORECASE)


class Line(NamedTuple):
    """One line of the sheet."""

    what: str
    goal: str
    measured: str
    is_met: bool


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    seed: int
    kills: int


def catalogue(asked: Asked, scratch: Path) -> Iterator[Line]:
    """Run the tests of every fault and tell of each what became of them."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, outcome in _tested(asked.seed, scratch / "catalogue.xml"):
        for fault in {f"F{number}" for number in _FAULT.findall(name)}:
            found[fault][outcome] += 1
    n_met = 0
    for fault, title in FAULTS.items():
        outcomes = found[fault]
        is_met = outcomes["passed"] > 0 and not outcomes["failed"]
        n_met += is_met
        told = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items())) or "no test"
        yield Line(f"{fault} {title}", "as the catalogue asks", f"{told} (seed {asked.seed})", is_met)
    yield Line(
        "the catalogue", f"{len(FAULTS)} of {len(FAULTS)}", f"{n_met} of {len(FAULTS)}", n_met == len(FAULTS)
    )


def _tested(seed: int, results: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and outcome of every test that names a fault."""
    wanted = " or ".join(FAULTS)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-k", wanted]
    subprocess.run(
        [*command, "--fault-seed", str(seed), "--junitxml", str(results)],
        cwd=ROOT,
        stdout=sys.stderr,
        check=False,
    )
    for case in ElementTree.parse(results).getroot().iter("testcase"):  # noqa: S314 - written by pytest just now
        outcomes = {child.tag for child in case}
        outcome = (
            "failed" if outcomes & {"failure", "error"} else "skipped" if "skipped" in outcomes else "passed"
        )
        yield str(case.get("name")).partition("[")[0], outcome


def kills(asked: Asked, scratch: Path) -> Iterator[Line]:
    """Kill runs, ten kills to a run, and look at what was lost, sent again and worked out differently."""
    found = [
        kill_and_compare(
            scratch / str(n), kills=min(KILLS_A_RUN, asked.kills - n), cells=1000, seed=asked.seed + n
        )
        for n in range(0, asked.kills, KILLS_A_RUN)
    ]
    n_kills, n_lost = sum(each.n_kills for each in found), sum(each.n_lost for each in found)
    same = sum(not each.differing for each in found)
    repeated = sum(each.n_repeated for each in found) / n_kills
    told = f"{n_lost}; {repeated:.1f} a kill in flight or answered within 250 ms"
    yield Line(f"{n_kills} kills: sent again after delivery", "0", told, n_lost == 0)
    yield Line("  runs with the same figures", "all", f"{same} of {len(found)}", same == len(found))


def limiter(_: Asked, scratch: Path) -> Iterator[Line]:
    """Let 1, 2 and 4 processes run against a limit of 20 a second."""
    for kind in PROMISED:
        for n_processes in (1, 2, 4):
            where = scratch / f"{kind} {n_processes}"
            where.mkdir()
            found = storm(where, n_processes=n_processes, n_cells=1200, kind=kind)
            told = (
                f"{found.n_failed} failed, {found.requests_per_success:.3f} requests a success, "
                f"{found.share_used:.1%} used"
            )
            yield Line(
                f"20 a second, {n_processes} x 100 in flight, {kind}", "0, 1.1, 92 %", told, found.is_kept
            )


def mlflow(_: Asked, scratch: Path) -> Iterator[Line]:
    """Run while MLflow refuses and while it stalls."""
    found = run_without_mlflow(scratch, pairs=5, cells=300)
    for name, ratio in (("refused", found.refused), ("stalled", found.stalled)):
        yield Line(f"MLflow {name}: time to the result", "at most 1.02", str(ratio), ratio.low <= MOST_SLOWER)
    yield Line("  exit after the result", "10 s", f"{found.exit_s:.1f} s", found.exit_s <= EXIT_WITHIN_S)
    amiss = found.n_failed + found.n_missing + found.n_twice
    told = f"{found.n_later} runs; {found.n_missing} missing, {found.n_twice} twice"
    yield Line("  delivered later", "all, once", told, not amiss)


def secrets(_: Asked, scratch: Path) -> Iterator[Line]:
    """Look for canary secrets in everything that every command leaves behind."""
    found = scan(scratch)
    where = f"{len(found.surfaces)} surfaces, {len(found.encodings)} encodings, {found.echoes.total()} echoes"
    told = f"{len(found.hits)} in {where}"
    yield Line("canary secrets found", "0", told, not found.hits and found.n_cut > 0)


PARTS: dict[str, Callable[[Asked, Path], Iterator[Line]]] = {
    "catalogue": catalogue,
    "kills": kills,
    "limiter": limiter,
    "mlflow": mlflow,
    "secrets": secrets,
}


def main() -> None:
    """Print the sheet, line by line as it is found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=", ".join(PARTS))
    parser.add_argument("--seed", type=int, default=7, help="of everything that is drawn (default: 7)")
    parser.add_argument("--kills", type=int, default=200, help="processes killed (default: 200)")
    told = parser.parse_args()
    missed = []
    for name in told.parts or PARTS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            for line in PARTS[name](Asked(told.seed, told.kills), Path(scratch)):
                print(
                    f"{'ok  ' if line.is_met else 'MISS'} {line.what:46} {line.measured:58} {line.goal}",
                    flush=True,
                )
                if not line.is_met:
                    missed.append(line.what)
        print(f"     {name}: {time.monotonic() - began:.0f} s", flush=True)
    raise SystemExit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
