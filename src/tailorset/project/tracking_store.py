"""Addresses of MLflow's runs and artifacts: relative to the project, although MLflow stores absolute ones.

MLflow writes the address of its artifacts into every row of its database. A project that was copied or moved would read
and write at its old place, so the rows are corrected before each use.
"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

EXPERIMENT = "tailorset"
ARTIFACTS = "mlartifacts"  # beside the database
SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")
RELATIVE_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)(?![/:])(.+)")
RELATIVE_FOLDER = re.compile(r"(?:file:)?(?!/|databricks|uc\b)([^:]+)")
ADDRESSES = (  # (table, column) of MLflow's schema that hold addresses of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
CAUSE_CHARS = 300  # at each end of a message


class TrackingError(Exception):
    """A fault of the store of runs and versions, and what mends it."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(f"{text}: {remedy}")
        self.text, self.remedy = text, remedy


class MisplacedError(TrackingError, ValueError):
    """A database that belongs to another folder."""


class UnreachableError(TrackingError, ConnectionError):
    """MLflow that does not answer or cannot be used."""


@contextmanager
def reached(uri: str) -> Iterator[None]:
    """Raise UnreachableError for errors of queries that fail only if MLflow cannot be used.

    Raises:
        UnreachableError: it fails, or the project's folder cannot be written to.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except TrackingError:
        raise
    except (MlflowException, OSError) as error:
        text = without_passwords(f"MLflow at {uri} failed ({shorten(str(error))})")
        raise UnreachableError(text, "start it, or correct MLFLOW_TRACKING_URI") from error


def without_passwords(text: str) -> str:
    """Leave user and password out of all addresses in a text."""
    return re.sub("//[^/ ]*@", "//", text)


def shorten(text: str) -> str:
    """A message on one line without its middle if it is long: many name the cause last."""
    line = " ".join(text.split())
    return line if len(line) <= 2 * CAUSE_CHARS else f"{line[:CAUSE_CHARS]} ... {line[-CAUSE_CHARS:]}"


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or one SQLite file in the project."""
    return from_root(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db", root)


def from_root(uri: str, root: Path) -> str:
    """The address of a store, a relative one taken as relative to the project.

    DVC runs experiments in temporary copies: what lies relative to one of them is deleted with it.
    """
    if match := RELATIVE_SQLITE.fullmatch(uri):
        return f"{match[1]}{root.resolve() / match[2]}"
    if match := RELATIVE_FOLDER.fullmatch(uri):
        return (root / match[1]).resolve().as_uri()
    return uri


def database_of(uri: str) -> Path | None:
    """The file of a SQLite address."""
    match = SQLITE.match(uri)  # as SQLAlchemy reads it: a folder's name may hold a `#`, which ends the path of a URL
    return Path(match[1]) if match else None


def artifacts_of(database: Path) -> str:
    """The address of the artifacts that belong to a database: they are beside it."""
    return (database.parent / ARTIFACTS).as_uri()


def settle(database: Path) -> None:
    """Correct the addresses in a database that was copied or moved together with its artifacts.

    Raises:
        MisplacedError: the artifacts are still at the old place, or the database cannot be written.
        UnreachableError: the file is no database.
    """
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            _correct(connection, database)
    except sqlite3.DatabaseError as error:
        remedy = "restore it from a copy, or move it away, and the next run begins another"
        raise UnreachableError(f"{database} cannot be read ({error})", remedy) from error


def _correct(connection: sqlite3.Connection, database: Path) -> None:
    old = _old_home(connection)
    here = database.parent
    if old is None or old == here:
        return
    if (old / ARTIFACTS).is_dir() and not (here / ARTIFACTS).is_dir():
        move = shlex.join(["cp", "-a", str(old / ARTIFACTS), str(here)])
        raise MisplacedError(f"{database} was copied from {old} without its artifacts", f"`{move}`")
    try:
        connection.execute("BEGIN IMMEDIATE")
        if _old_home(connection) == old:  # no other process was faster
            for table, column in _columns(connection):
                _replace_start(connection, table, column, old.as_uri(), here.as_uri())
                _replace_start(connection, table, column, str(old), str(here))
    except sqlite3.OperationalError as error:
        text = f"{database} came from {old} and its addresses cannot be corrected ({error})"
        raise MisplacedError(text, "make it writable once") from error


def _old_home(connection: sqlite3.Connection) -> Path | None:
    """Return the project folder that the experiment's artifact address names; None if they are stored elsewhere."""
    if ("experiments", "artifact_location") not in set(_columns(connection)):
        return None
    query = "SELECT artifact_location FROM experiments WHERE name = ?"
    location = next((row[0] for row in connection.execute(query, [EXPERIMENT])), None) or ""
    address = urlsplit(location)
    path = Path(unquote(address.path))
    is_ours = address.scheme in ("", "file") and path.is_absolute() and path.name == ARTIFACTS
    return path.parent if is_ours else None


def _columns(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield those of ADDRESSES that exist in this database: schemas differ between versions of MLflow."""
    for table, column in ADDRESSES:
        if any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})").fetchall()):
            yield table, column


def _replace_start(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    """Put `new` in place of the folder `old` at the start of every address."""
    connection.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
        [f"{new}/", len(old) + 2, len(old) + 1, f"{old}/"],
    )
