"""What a rebuild must know of each read model: which generation is live, how another is built beside it, and how it becomes live."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from domain.errors import InvalidValue
from domain.log import Position
from infra.clients import Clients
from infra.composition import Composition
from infra.graph_import import imported_graph
from infra.read_models import read_model
from infra.settings import Neo4jSettings
from infra.stack import Stack, StackError, neo4j_import
from infra.stack import neo4j as neo4j_part
from infra.stack.state import StackState
from projections.archive import ARCHIVED_TOPICS
from projections.errors import ProjectionError
from projections.fingerprint import Fingerprint, fingerprints
from projections.records import RecordBatch
from projections.verify import raw_table
from projections.wallet_graph import PROJECTION as GRAPH
from projections.wallet_graph import WalletGraphProjection
from schema_registry.contracts import TRANSACTION_EVENTS

Told = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and how much there is."""

STAGING = "staging-graph"
_NOT_IN_THIS_LAYOUT = frozenset({"42703", "42P01"})  # SQLSTATE: no such column, no such table


class Target(ABC):
    """One read model with generations. `projection` is its name in the quarantine topic."""

    projection: str

    @abstractmethod
    def live(self) -> int:
        """The generation that readers see."""

    @abstractmethod
    def discard(self, generation: int) -> None:
        """Remove what an abandoned rebuild may have left of a generation that is not live."""

    @abstractmethod
    def exists(self, generation: int) -> bool:
        """Whether a generation is still there."""

    @abstractmethod
    @contextmanager
    def building(self, generation: int) -> Iterator[Any]:
        """The store of a generation that is not live, ready to be written to and read back; the live one goes on meanwhile."""

    how = ""
    """What a rebuild does, in a sentence, where that is not plain."""
    is_filled_at_once = False
    """Whether a new generation begins with `filling`, from files, and goes on from there."""

    @contextmanager
    def filling(self, generation: int, progress: Told) -> Iterator[Any]:
        """Where to put all that the new generation begins with; it is there when the block has ended without an error.

        Killed or failed, nothing of it counts: `discard`, and begin anew.
        """
        raise AssertionError("this read model is filled by its own store alone")
        yield

    def left_over(self) -> Iterator[RecordBatch]:
        """Records before the filled generation's position that only the engine's own road can take or set aside. After `filling`."""
        return iter(())

    @abstractmethod
    def stands_at(self) -> Position:
        """How far the live generation is; empty where there is none."""

    @abstractmethod
    def still(self) -> tuple[Position, dict[str, Fingerprint]] | None:
        """The live generation's rows as fingerprints, with the one position that they belong to; none where it moved meanwhile, or has
        other columns than this code."""

    @abstractmethod
    def rows(self) -> dict[str, int]:
        """About how many rows the live generation holds, by table."""

    def before_event(self, generation: int) -> float:
        """Make the generation live where its store alone decides that; returns the seconds that readers waited."""
        return 0.0

    def after_event(self, generation: int) -> float:
        """Make the generation live where the log decides that; returns the seconds that readers waited at most."""
        return 0.0

    @abstractmethod
    def describe(self, generation: int) -> str:
        """Where a generation that was replaced still is."""


class ArchiveTarget(Target):
    """Each generation is a folder of the bucket; `GenerationSwapped` says which one is live."""

    projection = "archive"

    def __init__(self, composition: Composition) -> None:
        self._composition = composition

    def live(self) -> int:
        return self._composition.log.generations().get("archive", 1)

    def discard(self, generation: int) -> None:
        self._composition.archive(generation).remove()

    def exists(self, generation: int) -> bool:
        return bool(self._composition.archive(generation).load_position())

    @contextmanager
    def building(self, generation: int) -> Iterator[Any]:
        archive = self._composition.archive(generation)
        archive.prepare(self._composition.clients.catalog.schemas())
        if not archive.load_position():
            # It is filled from the first event on, or not at all: what is no longer there raises.
            archive.mark_beginning(dict.fromkeys(self._composition.log.starts(archive.topics), 0))
        yield archive

    def stands_at(self) -> Position:
        return self._composition.archive(self.live()).load_position()

    def still(self) -> tuple[Position, dict[str, Fingerprint]] | None:
        # Objects are never changed: what was there at a position stays readable, whoever puts more.
        archive = self._composition.archive(self.live())
        position = archive.load_position()
        objects = archive.objects()
        return position, fingerprints((b.topic, raw_table(b)) for b in archive.read_between(objects, {}, position))

    def rows(self) -> dict[str, int]:
        archive = self._composition.archive(self.live())
        found: dict[str, int] = dict.fromkeys(ARCHIVED_TOPICS, 0)
        for (topic, _), end in archive.load_position().items():
            found[topic] += end
        return {topic: rows for topic, rows in found.items() if rows}

    def describe(self, generation: int) -> str:
        return f"s3://{self._composition.settings.s3.bucket}/raw/g{generation}/"


class CuratedTarget(Target):
    """Each generation is an Iceberg table; `GenerationSwapped` says which one is live, the catalog's namespace tells readers."""

    projection = "curated"

    def __init__(self, composition: Composition) -> None:
        self._composition = composition

    def live(self) -> int:
        return self._composition.log.generations().get("curated", 1)

    def discard(self, generation: int) -> None:
        with closing(self._composition.curated(generation)) as curated:
            curated.remove()

    def exists(self, generation: int) -> bool:
        with closing(self._composition.curated(generation)) as curated:
            return bool(curated.exists())

    @contextmanager
    def building(self, generation: int) -> Iterator[Any]:
        with closing(self._composition.curated(generation)) as curated:
            curated.load_position()
            yield curated

    def stands_at(self) -> Position:
        live = self.live()
        with closing(self._composition.curated(live)) as curated:
            # Asking a table that is not there would make it.
            position: Position = curated.load_position() if curated.exists() else {}
        return position

    def still(self) -> tuple[Position, dict[str, Fingerprint]] | None:
        with closing(self._composition.curated(self.live())) as curated:
            position = curated.load_position()
            found = fingerprints(curated.read_back())
            return (position, found) if curated.load_position() == position else None

    def rows(self) -> dict[str, int]:
        return {topic: sum(end for (of, _), end in self.stands_at().items() if of == topic) for topic in (TRANSACTION_EVENTS,)}

    def after_event(self, generation: int) -> float:
        # Dying before this line costs nothing: the worker publishes the live generation when it starts.
        started = time.monotonic()
        with closing(self._composition.curated(generation)) as curated:
            curated.publish()
        return time.monotonic() - started

    def describe(self, generation: int) -> str:
        return f"Iceberg table tidemark.transactions_g{generation}"


class TablesTarget(Target):
    """In Postgres: each generation is a schema. `GenerationSwapped` says which one is live, views show it."""

    def __init__(self, composition: Composition, name: str) -> None:
        self._composition, self._name = composition, name
        self.projection = read_model(name).set_aside_as
        self._generations = composition.schemas(name)

    def live(self) -> int:
        return self._composition.log.generations().get(self._name, 1)

    def discard(self, generation: int) -> None:
        self._generations.drop(generation)

    def exists(self, generation: int) -> bool:
        return generation in self._generations.generations()

    @contextmanager
    def building(self, generation: int) -> Iterator[Any]:
        with closing(self._composition.store(self._name, generation)) as store:
            store.load_position()
            yield store

    def stands_at(self) -> Position:
        live = self.live()
        if not self.exists(live):
            return {}
        with closing(self._composition.store(self._name, live)) as store:
            position: Position = store.load_position()
        return position

    def still(self) -> tuple[Position, dict[str, Fingerprint]] | None:
        try:
            with closing(self._composition.store(self._name, self.live())) as store:
                found: tuple[Position, dict[str, Fingerprint]] = store.snapshot()
        except ProjectionError as error:
            if getattr(error.__cause__, "sqlstate", None) in _NOT_IN_THIS_LAYOUT:
                return None  # it was made by code with other columns: that is why it is rebuilt
            raise
        return found

    def rows(self) -> dict[str, int]:
        with closing(self._composition.store(self._name, self.live())) as store:
            counts: dict[str, int] = store.stored_counts()
        return counts

    def after_event(self, generation: int) -> float:
        # Dying before this line costs nothing: the worker publishes the live generation when it starts.
        started = time.monotonic()
        self._generations.publish(generation)
        return time.monotonic() - started

    def describe(self, generation: int) -> str:
        return f"schema {self._composition.store(self._name, generation).schema}"


class GraphTarget(Target):
    """Each generation is a data folder of the local server; the next is imported offline, caught up by a second server, then taken over.

    Readers wait about 15 s while the server restarts on the new folder. Community serves one database, so there is no other way.
    """

    projection = GRAPH
    is_filled_at_once = True
    how = (
        "lays the history out in files, imports them offline into a new data folder, catches up by a second Neo4j (about 1 GB of"
        " memory), then the first one restarts on that folder: readers wait for that"
    )

    def __init__(self, composition: Composition, stack: Stack) -> None:
        if "neo4j" not in stack.local_parts():
            raise InvalidValue(
                "neo4j.uri",
                "this Neo4j is your own server: set TIDEMARK_NEO4J__DATABASE to an empty database and start the graph worker,"
                " which fills it from the earliest event",
            )
        self._composition, self._stack = composition, stack
        self._staging = Stack(stack.state.folder / "rebuild" / STAGING, composition.settings.model_copy(update={"neo4j": Neo4jSettings()}))

    def live(self) -> int:
        return neo4j_part.current_generation(self._stack.state)

    def discard(self, generation: int) -> None:
        neo4j_import.stop(self._staging.state)
        self._staging.down()
        shutil.rmtree(self._staging.state.folder, ignore_errors=True)
        if generation != self.live():
            shutil.rmtree(neo4j_part.generation_folder(self._stack.state, generation), ignore_errors=True)

    def exists(self, generation: int) -> bool:
        return self._place(generation).is_dir()

    @contextmanager
    def building(self, generation: int) -> Iterator[Any]:
        state = self._prepared()
        place, built = self._place(generation), neo4j_part.generation_folder(state, 1)
        if generation != self.live() and place.is_dir() and not built.is_dir():
            # One that was live before, or that stood ready when a swap was killed: the second server works on it.
            built.parent.mkdir(parents=True, exist_ok=True)
            place.rename(built)
        self._staging.up(["neo4j"], is_tethered=True)
        settings = self._composition.settings.model_copy(update={"neo4j": self._staging.settings().neo4j})
        driver = Clients(settings).neo4j
        try:
            graph = WalletGraphProjection(driver, settings.neo4j.database)
            graph.prepare()
            yield graph
        finally:
            driver.close()
            self._staging.down()  # a clean stop: a store that was not closed is not taken over

    def stands_at(self) -> Position:
        position: Position = self._composition.graph().load_position()
        return position

    def still(self) -> tuple[Position, dict[str, Fingerprint]] | None:
        # Neo4j has no snapshots: what moved while it was read is no state that it ever had.
        graph = self._composition.graph()
        position = graph.load_position()
        found = fingerprints(graph.read_back())
        return (position, found) if graph.load_position() == position else None

    def rows(self) -> dict[str, int]:
        database = self._composition.settings.neo4j.database
        with self._composition.clients.neo4j.session(database=database) as session:  # both counts are kept by the store
            return {
                "nodes": int(session.run("MATCH (n) RETURN count(n) AS n").single(strict=True)["n"]),
                "relationships": int(session.run("MATCH ()-[r]->() RETURN count(r) AS n").single(strict=True)["n"]),
            }

    def before_event(self, generation: int) -> float:
        state = self._stack.state
        built, place = neo4j_part.generation_folder(self._staging.state, 1), self._place(generation)
        if built.is_dir():
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            built.rename(place)
        if not place.is_dir():
            raise StackError(f"{place} is gone: run `tidemark rebuild graph` again")
        started = time.monotonic()
        self._stack.stop_parts(["neo4j"])
        neo4j_part.make_current(state, generation)
        self._stack.up(["neo4j"])
        return time.monotonic() - started

    def after_event(self, generation: int) -> float:
        shutil.rmtree(self._staging.state.folder, ignore_errors=True)
        return 0.0

    def describe(self, generation: int) -> str:
        return str(self._place(generation))

    @contextmanager
    def filling(self, generation: int, progress: Told) -> Iterator[Any]:
        state = self._prepared()
        with imported_graph(state, state.folder / "import", self._stack.state.log("graph-import"), progress) as history:
            yield history

    def _prepared(self) -> StackState:
        state = self._staging.state
        state.create()
        # The user and password stand in the data that the first server takes over: they must be its own.
        state.write("secrets.json", {"neo4j": self._stack.state.secret("neo4j")})
        return state

    def _place(self, generation: int) -> Path:
        return neo4j_part.generation_folder(self._stack.state, generation)


def target_of(name: str, composition: Composition, stack: Stack, by_spark: Callable[[str], None] | None = None) -> Target:
    """The read model of a name.

    Args:
        by_spark: for the curated table: fill it by Spark, and tell here what takes long.

    Raises:
        InvalidValue: no such name, a server that is the user's own, or a read model that Spark does not fill.
        BrokenProjection: an installed projection cannot be used.
    """
    if by_spark is not None:
        if name != "curated":
            raise InvalidValue("name", f"Spark fills the curated table alone: run `tidemark rebuild {name}` without --with spark")
        from infra.spark.curation import CuratedBySpark

        return CuratedBySpark(composition, by_spark)
    if name == "archive":
        return ArchiveTarget(composition)
    if name == "curated":
        return CuratedTarget(composition)
    if name == "graph":
        return GraphTarget(composition, stack)
    return TablesTarget(composition, name)
