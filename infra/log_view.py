"""Small reads of the log that commands and workers share: control events, quarantine, cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from domain.log import Position, TopicPartition
from infra.clients import Clients
from infra.history_source import History
from infra.kafka.reading import last_record_ends, read_batches
from projections.quarantine import Quarantine, QuarantineEntry, QuarantineKey, decoded, state_of
from projections.records import RecordBatch
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import CASE_EVENTS, COMMANDS, CONTROL_EVENTS, QUARANTINE_EVENTS, WALLET_EVENTS
from schema_registry.errors import UndecodableRecord
from schema_registry.record_codec import RecordCodec


@dataclass(frozen=True, slots=True)
class Deployed:
    """The model that serves: `ModelDeployed` and its package's address."""

    model_version: str
    package_sha256: str
    package_uri: str
    endpoint: str
    from_seq: int


class LogView:
    """Reads committed records, from the archive where Kafka has them no longer.

    Commands and their results are not archived: of them a reader gets what Kafka still has.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self.history = History(clients)

    def read(self, topics: Sequence[str], start: Position, end: Position | None = None) -> Iterator[RecordBatch]:
        """Committed records from a position (or the first) to another (or the end as it is now).

        Raises:
            HistoryIncomplete: neither Kafka nor the archive has them all.
        """
        yield from self.history.read(topics, start, end if end is not None else self._clients.admin.ends(topics))

    def ends(self, topics: Sequence[str]) -> Position:
        """The offset after each partition's last record."""
        return self.history.ends(last_record_ends(self._clients.kafka, self._clients.admin, topics))

    def starts(self, topics: Sequence[str]) -> Position:
        """The first offset that Kafka still holds of each partition."""
        return self._clients.admin.starts(topics)

    def heads(self, topics: Sequence[str]) -> Position:
        """The last stable offset of each partition: markers and aborted records behind the last committed record lie before it."""
        return self._clients.admin.ends(topics)

    def show(self, start: Position, end: Position) -> Iterator[RecordBatch]:
        """All that Kafka still holds between two positions below the heads, records of aborted transactions included."""
        topics = sorted({topic for topic, _ in end})
        yield from read_batches(self._clients.kafka, topics, start, end, self._clients.admin.starts(topics), with_aborted=True)

    def appended_at(self, start: Position, end: Position) -> dict[TopicPartition, int]:
        """When Kafka appended the first committed record in [`start`, `end`) of each partition, in milliseconds since 1970."""
        found: dict[TopicPartition, int] = {}
        if not start:
            return found
        earliest = self._clients.admin.starts({topic for topic, _ in start})
        start = {tp: max(offset, earliest.get(tp, 0)) for tp, offset in start.items()}
        # A few offsets first: the record stands there unless markers or aborted records fill them.
        window = 16
        while pending := [tp for tp in start if tp not in found]:
            near = {tp: min(end[tp], start[tp] + window) for tp in pending}
            for batch in self.read(sorted({topic for topic, _ in pending}), start, near):
                places = zip(batch.partitions.tolist(), batch.timestamps_ms.tolist(), strict=True)
                for partition, at in places:
                    found.setdefault((batch.topic, partition), at)
            if all(near[tp] == end[tp] for tp in pending if tp not in found):
                break
            window *= 16
        return found

    def events(self, topic: str) -> Iterator[tuple[str, dict[str, Any], RecordBatch, int]]:
        """(event type, record, batch, index) of each record of a small topic; foreign bytes are left out."""
        codec = RecordCodec(self._clients.catalog)
        for batch in self.read([topic], {}):
            for index, value in enumerate(batch.values):
                try:
                    name, record = codec.decode(value)
                except UndecodableRecord:
                    continue
                yield name, record, batch, index

    def transactions_by_run(self) -> Counter[str]:
        """How many `RecordTransaction` commands each ingestion has in the command topic, by its `ingest_id`, whatever became of them."""
        codec = ColumnCodec(self._clients.catalog, {"TransactionRecorded": ("origin.ingest_id",)})
        found: Counter[str] = Counter()
        for batch in self.read([COMMANDS], {}):
            decoded_ = codec.decode(batch.values).tables.get("TransactionRecorded")
            if decoded_ is not None:
                counts = pc.value_counts(decoded_.table["origin.ingest_id"]).to_pylist()
                found.update({str(item["values"]): int(item["counts"]) for item in counts})
        return found

    def deployed(self) -> Deployed | None:
        """The model deployed last, if any."""
        found, packages = None, dict[str, str]()
        for name, record in self._control():
            if name == "ModelTrained":
                packages[record["package_sha256"]] = record["package_uri"]
            elif name == "ModelDeployed":
                found = record
        if found is None:
            return None
        version = found["model_version"]
        return Deployed(version, found["package_sha256"], packages.get(found["package_sha256"], ""), found["endpoint"], found["from_seq"])

    def trained(self) -> dict[str, tuple[str, str]]:
        """The address and the hash of each trained model's package."""
        return {
            record["model_version"]: (record["package_uri"], record["package_sha256"])
            for name, record in self._control()
            if name == "ModelTrained"
        }

    def trained_to(self, model_version: str) -> int:
        """Up to which seq a model was trained; 0 where the log does not know it."""
        found = [
            record["trained_to_seq"]
            for name, record in self._control()
            if name == "ModelTrained" and record["model_version"] == model_version
        ]
        return int(found[-1]) if found else 0

    def first_scored_seq(self) -> int:
        """The seq from which scores are contiguous: that of the first deployment."""
        return min((int(record["from_seq"]) for name, record in self._control() if name == "ModelDeployed"), default=0)

    def generations(self) -> dict[str, int]:
        """The live generation of each projection that was swapped."""
        swaps = [record for name, record in self._control() if name == "GenerationSwapped"]
        return {record["projection"]: int(record["generation"]) for record in swaps}

    def grown(self) -> dict[str, int]:
        """How many partitions each topic that was grown has by the log's word; while it grows, Kafka may have fewer."""
        found: dict[str, int] = {}
        for name, record in self._control():
            if name == "TopicGrown":
                found[record["topic"]] = max(found.get(record["topic"], 0), int(record["partitions"]))
        return found

    def last_swap(self, projection: str) -> tuple[int, int] | None:
        """The generation that a projection was swapped to last, and the one that it replaced; none where it never was."""
        swaps = [record for name, record in self._control() if name == "GenerationSwapped" and record["projection"] == projection]
        return (int(swaps[-1]["generation"]), int(swaps[-1]["replaced"])) if swaps else None

    def voids(self) -> list[tuple[str, int]]:
        """Each void: the tx_id, and the seq of the last transaction before it."""
        codec = ColumnCodec(self._clients.catalog, {"TransactionVoided": ("tx_id",)})
        found: list[tuple[str, int]] = []
        for batch in self.read([WALLET_EVENTS], {}):
            voided = codec.decode(batch.values).tables.get("TransactionVoided")
            if voided is not None:
                found += zip(voided.table["tx_id"].to_pylist(), batch.seqs()[voided.indexes].tolist(), strict=True)
        return found

    def restated_from(self) -> list[int]:
        """From which seqs on the features leave out what was taken back until then, in order."""
        return sorted({int(record["from_seq"]) for name, record in self._control() if name == "FeaturesRestated"})

    def next_seq(self, topic: str) -> int:
        """The seq after the last record of a topic that is in order of seq; 0 where it is empty."""
        ends = self.ends([topic])
        last = -1
        for tp, end in ends.items():
            if end:
                for batch in self.read([topic], {**ends, tp: end - 1}, {tp: end}):
                    last = max(last, int(batch.seqs().max()))
        return last + 1

    def policy(self) -> tuple[str, datetime] | None:
        """The policy set last, as text, and when."""
        found = None
        for name, record in self._control():
            if name == "PolicyChanged":
                found = str(record["policy"]), record["known_at"]
        return found

    def quarantine(self) -> dict[QuarantineKey, QuarantineEntry]:
        """The open entries."""
        return self.quarantine_state().entries

    def quarantine_state(self) -> Quarantine:
        """The open entries, and the records that were given up."""
        return state_of(self.quarantine_since({})[0])

    def quarantine_since(self, start: Position) -> tuple[Iterator[tuple[str, Mapping[str, Any], int]], Position]:
        """The events of the quarantine topic (type, record, time appended in ms) from a position to the end, and the end."""
        end = self._clients.admin.ends([QUARANTINE_EVENTS])
        codec = RecordCodec(self._clients.catalog)
        records = (batch.record(i) for batch in self.read([QUARANTINE_EVENTS], start, end) for i in range(len(batch)))
        return decoded(codec, records), end

    def cases(self) -> list[dict[str, Any]]:
        """Every case with its alert, newest last: `transactions` counts those that joined, `status` is where it stands."""
        cases: dict[str, dict[str, Any]] = {}
        status = {"CaseOpened": "open", "VerdictReached": "decided", "CaseClosed": "closed"}
        for name, record, *_ in self.events(CASE_EVENTS):
            if name == "AlertRaised":
                cases[record["case_id"]] = {
                    **record,
                    "status": "alerted",
                    "transactions": [record["tx_id"]],
                    "verdict": None,
                    "assignee": None,
                }
                continue
            case = cases.get(record["case_id"])
            if case is None:
                continue
            if name == "AlertExtended":
                case["transactions"].append(record["tx_id"])
                case["score"] = max(case["score"], record["score"])
            case["status"] = status.get(name, case["status"])
            case["verdict"] = record.get("verdict", case["verdict"])
            case["assignee"] = record.get("assignee", case["assignee"])
        return sorted(cases.values(), key=lambda case: case["tx_seq"])

    def _control(self) -> list[tuple[str, dict[str, Any]]]:
        """Control events in the order they were appended: across partitions by Kafka's time, within one by offset."""
        found: list[tuple[int, int, str, dict[str, Any]]] = []
        clock = dict[int, int]()
        for name, record, batch, index in self.events(CONTROL_EVENTS):
            partition = int(batch.partitions[index])
            # A broker's clock may step back; the records of a partition do not.
            at = clock[partition] = max(clock.get(partition, 0), int(batch.timestamps_ms[index]))
            found.append((at, int(batch.offsets[index]), name, record))
        return [(name, record) for _, _, name, record in sorted(found, key=lambda item: item[:2])]
