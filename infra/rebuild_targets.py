"""What a rebuild must know of each read model: which generation is live, how another is built beside it, and how it becomes live."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from domain.errors import InvalidValue
from infra.clients import Clients
from infra.composition import Composition
from infra.settings import Neo4jSettings
from infra.stack import Stack, StackError
from infra.stack import neo4j as neo4j_part
from projections.wallet_graph import PROJECTION as GRAPH
from projections.wallet_graph import WalletGraphProjection

NAMES = ("archive", "curated", "warehouse", "graph")
STAGING = "staging-graph"


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
    @contextmanager
    def building(self, generation: int) -> Iterator[Any]:
        """The store of a generation that is not live, ready to be written to and read back."""

    def before_event(self, generation: int) -> None:  # noqa: B027  most have nothing to do here
        """Make the generation live where its store alone decides that."""

    def after_event(self, generation: int) -> None:  # noqa: B027
        """Make the generation live where the log decides that."""

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

    @contextmanager
    def building(self, generation: int) -> Iterator[Any]:
        archive = self._composition.archive(generation)
        archive.prepare(self._composition.clients.catalog.schemas())
        yield archive

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

    @contextmanager
    def building(self, generation: int) -> Iterator[Any]:
        with closing(self._composition.curated(generation)) as curated:
            curated.load_position()
            yield curated

    def after_event(self, generation: int) -> None:
        # Dying before this line costs nothing: the worker publishes the live generation when it starts.
        with closing(self._composition.curated(generation)) as curated:
            curated.publish()

    def describe(self, generation: int) -> str:
        return f"Iceberg table tidemark.transactions_g{generation}"


class WarehouseTarget(Target):
    """Each generation is a schema; `GenerationSwapped` says which one is live, the views of `warehouse` show it."""

    projection = "warehouse"

    def __init__(self, composition: Composition) -> None:
        from projections.warehouse import WarehouseGenerations

        self._composition = composition
        self._generations = WarehouseGenerations(composition.warehouse_dsn)

    def live(self) -> int:
        return self._composition.log.generations().get("warehouse", 1)

    def discard(self, generation: int) -> None:
        self._generations.drop(generation)

    @contextmanager
    def building(self, generation: int) -> Iterator[Any]:
        warehouse = self._composition.warehouse(generation)
        warehouse.load_position()
        try:
            yield warehouse
        finally:
            warehouse.close()

    def after_event(self, generation: int) -> None:
        # Dying before this line costs nothing: the worker publishes the live generation when it starts.
        self._generations.publish(generation)

    def describe(self, generation: int) -> str:
        return f"schema warehouse_g{generation}"


class GraphTarget(Target):
    """Each generation is a data folder of the local server; the next one is filled by a second server, then the first takes it over.

    Readers wait about 15 s while the server restarts on the new folder. Community serves one database, so there is no other way.
    """

    projection = GRAPH

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
        self._staging.down()
        shutil.rmtree(self._staging.state.folder, ignore_errors=True)
        if generation != self.live():
            shutil.rmtree(neo4j_part.generation_folder(self._stack.state, generation), ignore_errors=True)

    @contextmanager
    def building(self, generation: int) -> Iterator[Any]:
        state = self._staging.state
        state.create()
        # The user and password stand in the data that the first server takes over: they must be its own.
        state.write("secrets.json", {"neo4j": self._stack.state.secret("neo4j")})
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

    def before_event(self, generation: int) -> None:
        state = self._stack.state
        built = neo4j_part.generation_folder(self._staging.state, 1)
        place = neo4j_part.generation_folder(state, generation)
        if built.is_dir():
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            built.rename(place)
        if not place.is_dir():
            raise StackError(f"{place} is gone: run `tidemark rebuild graph` again")
        self._stack.stop_parts(["neo4j"])
        neo4j_part.make_current(state, generation)
        self._stack.up(["neo4j"])

    def after_event(self, generation: int) -> None:
        shutil.rmtree(self._staging.state.folder, ignore_errors=True)

    def describe(self, generation: int) -> str:
        return str(neo4j_part.generation_folder(self._stack.state, generation))


def target_of(name: str, composition: Composition, stack: Stack) -> Target:
    """The read model of a name in `NAMES`.

    Raises:
        InvalidValue: no such name, or a server that is the user's own.
    """
    if name == "archive":
        return ArchiveTarget(composition)
    if name == "curated":
        return CuratedTarget(composition)
    if name == "warehouse":
        return WarehouseTarget(composition)
    if name == "graph":
        return GraphTarget(composition, stack)
    raise InvalidValue("name", f"expected one of {', '.join(NAMES)}, found {name[:40]!r}")
