"""The curated table filled by a Spark job: files below the table's own folder, registered in one commit with their position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError

from domain.log import Position
from infra.composition import Composition
from infra.rebuild_targets import CuratedTarget, Told
from infra.spark.environment import spark_environment
from infra.spark.run import SparkRunner
from projections.curated.table import EVENT_TYPE
from projections.errors import StoreUnavailable
from projections.records import RecordBatch
from schema_registry.column_codec import arrow_schema
from schema_registry.contracts import TRANSACTION_EVENTS

if TYPE_CHECKING:
    from projections.curated import CuratedProjection

_NEAR_OFFSETS = 10_000


class CuratedBySpark(CuratedTarget):
    """The same table, begun by a Spark job over the archive. What the archive has not yet, the engine reads as ever."""

    is_filled_at_once = True
    how = "decodes the archive in a Spark job, registers its files in one commit, and reads on from there"

    def __init__(self, composition: Composition, say: Callable[[str], None]) -> None:
        super().__init__(composition)
        self._say = say
        self._refused: list[tuple[int, int]] = []

    @contextmanager
    def filling(self, generation: int, progress: Told) -> Iterator[Any]:
        with closing(self._composition.curated(generation)) as curated:
            runner = SparkRunner(self._composition, spark_environment(self._say))
            position = {tp: end for tp, end in self._composition.archive().load_position().items() if tp[0] == TRANSACTION_EVENTS and end}
            if position:
                progress("spark", 0, 1)
                files, self._refused = curated_rows(runner, curated, position)
                curated.adopt(files, position)
                progress("spark", 1, 1)
            yield curated

    def left_over(self) -> Iterator[RecordBatch]:
        for partition in sorted({partition for partition, _ in self._refused}):
            offsets = np.array(sorted(offset for of, offset in self._refused if of == partition))
            tp = (TRANSACTION_EVENTS, partition)
            # Those near each other are read at once, and taken at once: each taking is a commit of the table.
            for near in np.split(offsets, np.flatnonzero(np.diff(offsets) > _NEAR_OFFSETS) + 1):
                start, end = {tp: int(near[0])}, {tp: int(near[-1]) + 1}
                for batch in self._composition.log.read([TRANSACTION_EVENTS], start, end):
                    mine = np.flatnonzero((batch.partitions == partition) & np.isin(batch.offsets, near))
                    if len(mine):
                        yield batch.take(mine)


def curated_rows(runner: SparkRunner, curated: CuratedProjection, position: Position) -> tuple[list[str], list[tuple[int, int]]]:
    """Write the rows of the archive up to a position; returns the files' addresses, and the places (partition, offset) of the records
    that gave none.

    Raises:
        SparkJobFailed: the job died; what it left lies in the folder of a table that is not live.
        StoreUnavailable: S3 does not answer.
    """
    folder = f"{curated.location().rstrip('/')}/data/spark-{uuid4().hex[:12]}"
    leaves = arrow_schema(EVENT_TYPE)
    spec = {
        **runner.spec(EVENT_TYPE),
        "position": {str(partition): offset for (_, partition), offset in position.items()},
        "out": folder.replace("s3://", "s3a://", 1),
        "leaves": leaves.names,
        "texts": [field.name for field in leaves if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)],
    }
    found = runner.run("curate", spec)
    bucket = runner.composition.settings.s3.bucket
    prefix = folder.removeprefix(f"s3://{bucket}/")
    try:
        pages = runner.composition.clients.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailable(f"S3: what Spark wrote cannot be listed: {error}") from error
    return [f"s3://{bucket}/{key}" for key in sorted(keys) if key.endswith(".parquet")], [(p, o) for p, o in found["refused"]]
