"""Keeps the curated table in order: small files become larger ones, old snapshots go, and what no snapshot needs is deleted from S3.

Nothing here changes a row, and each snapshot made here carries the position on. Iceberg's own expiry deletes no file, so that is
done here: what the expired snapshots alone named goes at once; what no snapshot ever named (a commit that lost or died) goes when
it is older than any commit can take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot

from projections.curated.table import position_of, position_text
from projections.errors import StoreUnavailable

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_MIB = 1 << 20
_PAGE = 1_000  # keys that S3 deletes in one request


@dataclass(frozen=True, slots=True)
class Upkeep:
    """When and how the table is kept in order.

    Args:
        every_commits: a turn after so many commits of a worker.
        small_bytes: a data file below this is worth merging; a tenth of what analytic engines like best.
        min_files: small files of one day that are worth a commit.
        batch_bytes: compressed bytes read for one compacting commit: what bounds the memory (some ten times as much).
        snapshot_age_s: a snapshot is kept so long for readers that have begun on it and for looking back.
        min_snapshots: so many are kept whatever their age.
        orphan_age_s: a file that no snapshot names is kept so long. A commit takes seconds and is tried for less than a minute; a day
            leaves room for a machine that slept.
        now: seconds since 1970, by the same clock that dates snapshots.
    """

    every_commits: int = 100
    small_bytes: int = 32 * _MIB
    min_files: int = 8
    batch_bytes: int = 96 * _MIB
    snapshot_age_s: float = 3_600.0
    min_snapshots: int = 5
    orphan_age_s: float = 86_400.0
    now: Callable[[], float] = field(default=time.time, repr=False)


@dataclass(slots=True)
class Kept:
    """What one turn did."""

    files_merged: int = 0
    snapshots_expired: int = 0
    files_deleted: int = 0
    orphans_deleted: int = 0

    def as_json(self) -> dict[str, int]:
        """The counts as plain values."""
        return {
            "files_merged": self.files_merged, "snapshots_expired": self.snapshots_expired, "files_deleted": self.files_deleted,
            "orphans_deleted": self.orphans_deleted,
        }  # fmt: skip


def maintain(table: Table, s3: S3Client, bucket: str, upkeep: Upkeep) -> Kept:
    """One turn: compact, expire, delete. A commit that another writer's overtakes is left for the next turn.

    Raises:
        OSError, ClientError: S3 refuses or does not answer; the table is whole, files may be left for the next turn.
    """
    kept = Kept()
    try:
        kept.files_merged = _compact(table, upkeep)
    except CommitFailedException:
        table.refresh()
    kept.snapshots_expired, kept.files_deleted = _expire(table, s3, bucket, upkeep)
    kept.orphans_deleted = _delete_orphans(table, s3, bucket, upkeep)
    return kept


def delete_below(s3: S3Client, bucket: str, location: str) -> int:
    """Delete every object below a table's location; returns how many."""
    keys = [key for key, _ in _objects(s3, bucket, location)]
    _delete(s3, bucket, keys)
    return len(keys)


def _compact(table: Table, upkeep: Upkeep) -> int:
    """Merge the small files of each day, in order of seq, some of them a commit; returns how many there were."""
    by_day: dict[tuple[int, Any], list[FileScanTask]] = {}
    for task in table.scan().plan_files():
        # Only another engine makes delete files; their rows are its to apply.
        if task.file.file_size_in_bytes < upkeep.small_bytes and not task.delete_files:
            by_day.setdefault((task.file.spec_id, task.file.partition[0]), []).append(task)
    done, batch, size = 0, list[FileScanTask](), 0
    for tasks in by_day.values():
        if len(tasks) < upkeep.min_files:
            continue
        for task in tasks:
            if batch and size + task.file.file_size_in_bytes > upkeep.batch_bytes:
                done += _merge(table, batch)
                batch, size = [], 0
            batch.append(task)
            size += task.file.file_size_in_bytes
    return done + (_merge(table, batch) if batch else 0)


def _merge(table: Table, tasks: list[FileScanTask]) -> int:
    found = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_table(tasks)
    position = position_text(position_of(table))
    with table.transaction() as transaction, transaction.update_snapshot(snapshot_properties=position).overwrite() as change:
        for task in tasks:
            change.delete_data_file(task.file)
        ordered = found.sort_by([("seq", "ascending"), ("log_partition", "ascending"), ("log_offset", "ascending")])
        for file in _dataframe_to_data_files(table.metadata, ordered, table.io, change.commit_uuid):
            change.append_data_file(file)
    return len(tasks)


def _expire(table: Table, s3: S3Client, bucket: str, upkeep: Upkeep) -> tuple[int, int]:
    """Forget old snapshots and delete what they alone named; returns how many snapshots and files."""
    protected = {ref.snapshot_id for ref in table.metadata.refs.values()}
    by_age = sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
    limit_ms = (upkeep.now() - upkeep.snapshot_age_s) * 1_000
    doomed = [
        snapshot
        for snapshot in by_age[: max(0, len(by_age) - upkeep.min_snapshots)]
        if snapshot.timestamp_ms < limit_ms and snapshot.snapshot_id not in protected
    ]
    if not doomed:
        return 0, 0
    named = _named_by(table, doomed)
    try:
        table.maintenance.expire_snapshots().by_ids([snapshot.snapshot_id for snapshot in doomed]).commit()
    except (CommitFailedException, ValueError):  # the second: another keeper has expired some of them already
        table.refresh()
        return 0, 0
    table.refresh()
    # What the log of snapshots names now is what anyone can still read, or build the next snapshot on.
    gone = named - _named_by(table, table.metadata.snapshots)
    _delete(s3, bucket, [_key(path, bucket) for path in sorted(gone)])
    return len(doomed), len(gone)


def _delete_orphans(table: Table, s3: S3Client, bucket: str, upkeep: Upkeep) -> int:
    # Listed first, asked for references after: a file that is committed in between is seen to be needed.
    old = [key for key, age_s in _objects(s3, bucket, table.location()) if age_s > upkeep.orphan_age_s]
    if not old:
        return 0
    table.refresh()
    named = _named_by(table, table.metadata.snapshots)
    named |= {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    named |= {statistics.statistics_path for statistics in table.metadata.statistics}
    named |= {statistics.statistics_path for statistics in table.metadata.partition_statistics}
    needed = {_key(path, bucket) for path in named}
    orphans = [key for key in old if key not in needed]
    _delete(s3, bucket, orphans)
    return len(orphans)


def _named_by(table: Table, snapshots: Iterable[Snapshot]) -> set[str]:
    """Paths of every file that these snapshots need: their lists, manifests and data files."""
    found: set[str] = set()
    for snapshot in snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in found:
                continue  # manifests never change and most snapshots share them
            found.add(manifest.manifest_path)
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
                if entry.status != ManifestEntryStatus.DELETED:
                    found.add(entry.data_file.file_path)
    return found


def _objects(s3: S3Client, bucket: str, location: str) -> Iterable[tuple[str, float]]:
    """Each object below a location with its age in seconds, by the store's own clock."""
    token: dict[str, str] = {}
    while True:
        page: Any = s3.list_objects_v2(Bucket=bucket, Prefix=_key(location, bucket).rstrip("/") + "/", **token)
        now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):  # a folder's own marker, of stores that have folders
                yield item["Key"], (now - item["LastModified"]).total_seconds()
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _delete(s3: S3Client, bucket: str, keys: list[str]) -> None:
    for at in range(0, len(keys), _PAGE):
        objects: Any = [{"Key": key} for key in keys[at : at + _PAGE]]
        refused = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects}).get("Errors")
        if refused:
            raise StoreUnavailable(f"S3: {refused[0].get('Key')} cannot be deleted: {refused[0].get('Message')}")


def _key(path: str, bucket: str) -> str:
    return path.removeprefix(f"s3://{bucket}/")
