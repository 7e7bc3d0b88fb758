"""Which read models there are: the four built in, and those that installed packages add under the entry point `tidemark.projections`.

An entry point, not a setting: what is installed beside Tidemark is known to every process of it, whoever starts that (a person, the local
stack's supervisor, systemd, a container), and its name is known without importing it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from domain.errors import InvalidValue
from projections.errors import ProjectionError
from projections.runner import FlushPolicy

if TYPE_CHECKING:
    from projections.table_projection import TableProjection

ENTRY_POINTS = "tidemark.projections"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TAKEN = frozenset(
    {
        "log", "command-handler", "scorer", "alerts", "notifier", "endpoint", "scores",  # workers, stores and parts of them
        "kafka", "registry", "s3", "postgres", "neo4j", "guides", "aws",  # servers
        "wallet-graph", "file", "iceberg", "card-alerts", "public", "information-schema",  # names in the quarantine, and schemas
    }
)  # fmt: skip
_LONGEST_NAME = 40  # Postgres keeps 63 bytes of a schema's name, and a generation is appended


class BrokenProjection(ProjectionError):
    """An installed projection cannot be used; the message names its package and says why."""


@dataclass(frozen=True, slots=True)
class ReadModel:
    """What must be known of a read model before it is opened.

    `needs` are the local servers that it stands on, beside Kafka and the registry; the first one holds its position. `set_aside_as` is
    its name in the quarantine topic. `added` is its entry point, none for those built in.
    """

    name: str
    needs: tuple[str, ...]
    policy: FlushPolicy
    set_aside_as: str
    added: EntryPoint | None = None

    @property
    def rebuild_policy(self) -> FlushPolicy:
        """When a rebuild flushes: nobody waits for its rows, so not before a second has passed."""
        return FlushPolicy(self.policy.max_records, max(1.0, self.policy.max_age_s))

    def table_projection(self) -> type[TableProjection]:
        """The class behind an installed projection.

        Raises:
            BrokenProjection: it cannot be imported, or is no `TableProjection` of this name.
        """
        from projections.table_projection import TableProjection

        assert self.added is not None
        where = f"the projection {self.name} ({self.added.value}, from {_package(self.added)})"
        try:
            found = self.added.load()
        except Exception as error:  # whatever an import of foreign code may raise
            raise BrokenProjection(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
        if not (isinstance(found, type) and issubclass(found, TableProjection)):
            raise BrokenProjection(f"{where} is no subclass of projections.table_projection.TableProjection")
        if found.name != self.name:
            raise BrokenProjection(f"{where} calls itself {found.name!r}: name and entry point must be the same")
        return found


BUILT_IN: Mapping[str, ReadModel] = {
    "archive": ReadModel("archive", ("s3",), FlushPolicy(100_000, 2.0), "archive"),
    # A commit costs 0.2 s and makes a file for each day it touches: few and large. Its catalog is in Postgres.
    "curated": ReadModel("curated", ("s3", "postgres"), FlushPolicy(100_000, 5.0), "curated"),
    "warehouse": ReadModel("warehouse", ("postgres",), FlushPolicy(50_000, 0.5), "warehouse"),
    "graph": ReadModel("graph", ("neo4j",), FlushPolicy(20_000, 0.5), "wallet-graph"),
}


@cache
def added() -> Mapping[str, ReadModel]:
    """Installed projections by name, none of them imported.

    Raises:
        BrokenProjection: one has a name that cannot be one, or that is taken.
    """
    found: dict[str, ReadModel] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        name = point.name
        where = f"the projection {name!r} of {_package(point)}"
        is_taken = name in BUILT_IN or name in _TAKEN or name.startswith("pg-")
        if is_taken or (name in found and found[name].added != point):
            raise BrokenProjection(f"{where} has a name that is taken: uninstall it, or give it another")
        # A generation's schema is `<name>_g<n>`: nobody else's may look like one.
        if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name) or re.search(r"-g\d+$", name):
            allowed = f"at most {_LONGEST_NAME} lower-case letters, digits and single hyphens, without -g<number> at the end"
            raise BrokenProjection(f"{where}: expected a name of {allowed}")
        found[name] = ReadModel(name, ("postgres",), FlushPolicy(50_000, 0.5), name, point)
    return found


def names() -> tuple[str, ...]:
    """Every read model, those built in first."""
    return (*BUILT_IN, *added())


def read_model(name: str) -> ReadModel:
    """The read model of a name.

    Raises:
        InvalidValue: no such name.
        BrokenProjection: see `added`.
    """
    found = BUILT_IN.get(name) or added().get(name)
    if found is None:
        raise InvalidValue("name", f"expected one of {', '.join(names())}, found {name[:40]!r}")
    return found


def set_aside_by(name: str) -> ReadModel | None:
    """The read model that sets records aside under a name; none for workers that are no read models."""
    return next((model for model in (*BUILT_IN.values(), *added().values()) if model.set_aside_as == name), None)


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
