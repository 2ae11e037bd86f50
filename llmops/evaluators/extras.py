"""Libraries that only some evaluators need: extras of this package, imported when first used."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from llmops.errors import UsageError


def installed_version(distribution: str, extra: str) -> str:
    """Return the version of a library, without importing it.

    Raises UsageError with what to install when it is not there.
    """
    try:
        return version(distribution)
    except PackageNotFoundError as error:
        raise _missing(distribution, extra) from error


def import_extra(module: str, extra: str) -> Any:
    """Return a module of a library that belongs to an extra.

    Raises UsageError with what to install when it is not there.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise _missing(module.partition(".")[0], extra) from error


def _missing(library: str, extra: str) -> UsageError:
    return UsageError(f"{library} is not installed; `pip install 'llmops-workbench[{extra}]'` brings it")
