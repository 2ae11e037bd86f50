"""Where MLflow is, how its pages are reached, and what its names and texts may be; mlflow is not imported.

Whoever prints a link or asks whether a server is there pays nothing for it. Reading and writing are left to `mlflow`.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from llmops.addresses import HTTP_URL, SECRET_HOSTS, is_forbidden, is_listed, refuse_forbidden
from llmops.errors import StoreError, UsageError
from llmops.secrets import register_environment, scrub

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from llmops.records import Figure

URI_VARIABLE = "MLFLOW_TRACKING_URI"
CREDENTIALS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
CREDENTIALS_FILE = (
    ".mlflow/credentials"  # at home; MLflow sends what stands in it to whichever server it is told
)
DATABASE_CREDENTIALS = ("PGPASSWORD", "MYSQL_PWD")
CONNECT_S = 2.0
LOCAL_ADDRESS = "http://127.0.0.1:5000"

MAX_NAME_PART = 70  # MLflow takes 250 for the whole: a slice, a metric, its part and a suffix
MAX_PARAMETER = 6_000  # beyond these two, MLflow cuts without a word
MAX_TAG = 8_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SQLITE = "sqlite:///"
_PORTS = {"http": 80, "https": 443}


# --- addresses --------------------------------------------------------------------------------------------


def resolve_uri(written: str, *, root: Path, environment: Mapping[str, str]) -> str:
    """Return the tracking URI in force: that of the environment, else what llmops.yaml says.

    A relative SQLite path starts at `root`.

    Raises UsageError for a URI that is none, a folder, or a host that only a file names while the environment
    holds credentials for MLflow, which would go there.
    """
    register_environment(environment)
    given = environment.get(URI_VARIABLE, "").strip()
    uri = given or written.strip()
    if uri.startswith("sqlite:"):
        return _absolute_sqlite(uri, root)
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()  # as all who read it do
    uri = f"{scheme}{separator}{rest}" if separator else uri
    if scheme in _PORTS:
        _refuse_doubtful(uri)
    if separator and scheme not in ("databricks", "file") and not given:
        _refuse_stranger(uri, scheme, environment)
    if uri != "databricks" and (not separator or scheme == "file"):
        raise UsageError(
            f"tracking: {shown(uri)!r} is a folder, and MLflow keeps no runs in folders any more; "
            "write sqlite:///mlflow.db or the address of a server"
        )
    return uri


def _absolute_sqlite(uri: str, root: Path) -> str:
    path = uri.removeprefix(_SQLITE)
    if path == uri or not path or path.startswith(":memory:"):
        raise UsageError(f"tracking: {uri!r} names no file; write sqlite:///PATH")
    return f"{_SQLITE}{(root / path).resolve()}"


def _refuse_doubtful(uri: str) -> None:
    """Raise UsageError for an address that two parsers could read differently, or that nothing of ours goes to."""
    match = HTTP_URL.fullmatch(uri)
    if match is None:
        raise UsageError(
            "tracking: the address names no host for certain; write http(s)://HOST[:PORT][/PATH]"
        )
    if is_forbidden(match["host"]):
        raise UsageError(
            f"tracking: {match['host']} is a link-local address, or one where clouds keep their metadata"
        )


def _refuse_stranger(uri: str, scheme: str, environment: Mapping[str, str]) -> None:
    """Raise UsageError for a host that only a file names, where the environment has what would go there."""
    parts = urlsplit(uri)
    places = {parts.hostname or "", parts.netloc.rpartition("@")[2]}
    held = list(_credentials(scheme, environment))
    if held and not is_listed(environment, places):
        raise UsageError(
            f"tracking: {' and '.join(held)} would go to {parts.hostname}, a host that only llmops.yaml names; "
            f"set {URI_VARIABLE}, or allow it: {SECRET_HOSTS}={parts.hostname}"
        )


def _credentials(scheme: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield where there is what MLflow or a database's driver would send along."""
    names = CREDENTIALS if scheme in _PORTS else DATABASE_CREDENTIALS
    yield from (name for name in names if environment.get(name))
    home = environment.get("HOME")
    if scheme in _PORTS and home and (Path(home) / CREDENTIALS_FILE).exists():
        yield f"~/{CREDENTIALS_FILE}"


def database_path(uri: str) -> str | None:
    """Return the file of a SQLite tracking URI, None for any other."""
    return uri.removeprefix(_SQLITE) if uri.startswith(_SQLITE) else None


def shown(uri: str) -> str:
    """Return a tracking URI without user name, password and query: what may be printed and stored."""
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def check_reachable(uri: str) -> None:
    """See that a server takes connections; a database, and what lies behind a proxy, is not tried.

    Raises StoreError within seconds when nobody answers.
    """
    parts = urlsplit(uri)
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or _goes_by_proxy(parts.scheme, host):
        return
    try:
        place = (host, parts.port or _PORTS[parts.scheme])
        refuse_forbidden(host, [str(found[-1][0]) for found in socket.getaddrinfo(*place)])
        with closing(socket.create_connection(place, CONNECT_S)):
            return
    except (OSError, ValueError) as error:
        raise StoreError(
            f"MLflow at {shown(uri)} cannot be reached ({error}); "
            "what is waiting stays so, `llmops sync` delivers it once the server is up"
        ) from error


def check_answers(uri: str, patience_s: float) -> None:
    """See that a server says anything at all, whatever it is; it is sent no credentials.

    Raises StoreError when nobody is there, or when nothing is said in so many seconds.
    """
    check_reachable(uri)
    parts = urlsplit(uri)
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or _goes_by_proxy(parts.scheme, host):
        return
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    with closing(kind(host, parts.port or _PORTS[parts.scheme], timeout=patience_s)) as connection:
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/health")
            connection.getresponse()
        except TimeoutError as error:
            raise StoreError(f"MLflow has said nothing for {patience_s:.0f} s") from error
        except (OSError, HTTPException):
            return  # it is alive in some way: what is amiss is better said by MLflow's own client


def _goes_by_proxy(scheme: str, host: str) -> bool:
    return scheme in getproxies() and not proxy_bypass(host)


def is_begun(uri: str) -> bool:
    """Say whether there is something to read: a database is, once it is made; of a server, only asking tells."""
    path = database_path(uri)
    return path is None or (Path(path).is_file() and Path(path).stat().st_size > 0)


# --- pages ------------------------------------------------------------------------------------------------


def run_page(experiment_id: str, run_id: str) -> str:
    """Return the path of a run's page."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def compare_page(experiment_id: str, *, candidate: str, baseline: str) -> str:
    """Return the path of the page that shows two MLflow runs side by side, case by case."""
    runs = f"selectedRunUuid={candidate}&compareToRunUuid={baseline}"
    return f"#/experiments/{experiment_id}/evaluation-runs?{runs}"


def page_url(uri: str, page: str) -> str:
    """Return the address of a page; for a database, where it will be once `ui_command` runs."""
    address = shown(uri).rstrip("/") if urlsplit(uri).scheme in _PORTS else LOCAL_ADDRESS
    return f"{address}/{page}"


def ui_command(uri: str) -> str | None:
    """Return the command that shows a database, None where a server is running already."""
    if urlsplit(uri).scheme in _PORTS:
        return None
    return f"mlflow server --backend-store-uri {shlex.quote(shown(uri))}"


def milliseconds(time: datetime) -> int:
    """Return a time as MLflow keeps it, since 1970 and cut off; exact, as a float is not."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


# --- texts ------------------------------------------------------------------------------------------------

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    r"""Return a text that every database takes, without secrets: NUL and half a character stand as \u0000, \ud800."""
    text = scrub(text)
    if "\0" not in text and (text.isascii() or not _UNSTORABLE.search(text)):
        return text
    return _UNSTORABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def shorten(text: str, limit: int, *, whole: str) -> str:
    """Return a storable text of at most `limit` characters that says so when it was longer.

    whole: where all of it can be read.
    """
    text = storable(text)
    if len(text) <= limit:
        return text
    note = f" … [shortened from {len(text)} characters; whole in {whole}]"
    return text[: limit - len(note)] + note


# --- metrics ----------------------------------------------------------------------------------------------

_BARE = re.compile(r"[^\w. -]|^\.|^$")
_VALUES: Mapping[str, str] = {"mean": "mean", "sum": "total"}
_SUFFIXES = ("mean", "total", "n", "missing", "ci_low", "ci_high")


def safe_name(text: str) -> str:
    """Return a name as MLflow takes it: what it refuses stands as its code between colons.

    Different names stay different. One that is too long ends in its hash.
    """
    name = _BARE.sub(lambda match: f":{ord(match[0]):x}:" if match[0] else "::", text)
    if len(name) > MAX_NAME_PART:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        name = f"{name[: MAX_NAME_PART - 13]}:{digest[:12]}"
    return name


def metric_values(
    figures: Mapping[str, Figure], evaluators: Collection[str], *, prefix: str = ""
) -> dict[str, float]:
    """Return the numbers of figures by the names they get in MLflow; what nobody knows is left out.

    `exact_match` gives `exact_match/mean`, `/n`, `/missing`, `/ci_low`, `/ci_high`; a part stands under its
    evaluator: `classification/macro_f1`. MLflow shows them in this order: values, then parts, then the rest.
    evaluators: their names, which may hold dots.
    """
    values: dict[str, float] = {}
    parts: dict[str, float] = {}
    rest: dict[str, float] = {}
    for metric, figure in figures.items():
        head, part = _split(metric, evaluators)
        name = prefix + safe_name(head) + (f"/{_safe_part(part)}" if part else "")
        if figure.value is not None and (part or figure.kind not in _VALUES):
            (parts if part else values)[name] = figure.value
        elif figure.value is not None:
            values[f"{name}/{_VALUES[figure.kind]}"] = figure.value
        if figure.interval is not None:
            rest |= {f"{name}/ci_low": figure.interval.low, f"{name}/ci_high": figure.interval.high}
        if metric in evaluators:
            rest |= {f"{name}/n": float(figure.n), f"{name}/missing": float(figure.n_missing)}
    return values | parts | rest


def own_metric(values: Mapping[str, float], evaluator: str) -> dict[str, float]:
    """Return what `metric_values` made of an evaluator's own figure, by suffix; the figure itself is `value`."""
    name = safe_name(evaluator)
    keys = {"value": [name, *(f"{name}/{word}" for word in _VALUES.values())]}
    keys |= {suffix: [f"{name}/{suffix}"] for suffix in ("n", "ci_low", "ci_high")}
    return {word: values[key] for word, options in keys.items() for key in options if key in values}


def _safe_part(part: str) -> str:
    """Return the name of a part; one that is called as a suffix of ours gets its first letter escaped."""
    name = safe_name(part)
    return f":{ord(part[0]):x}:{name[1:]}" if part in _SUFFIXES else name


def _split(metric: str, evaluators: Collection[str]) -> tuple[str, str]:
    owners = [name for name in evaluators if metric == name or metric.startswith(f"{name}.")]
    owner = max(owners, key=len, default=metric.partition(".")[0])
    return owner, metric[len(owner) + 1 :]


def parameter_values(values: Mapping[str, str], *, whole: str) -> dict[str, str]:
    """Return parameters by safe names, as texts of a length that MLflow keeps."""
    return {safe_name(key): shorten(value, MAX_PARAMETER, whole=whole) for key, value in values.items()}
