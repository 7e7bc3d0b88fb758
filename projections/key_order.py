"""What a projection must not take now: what it gave up, what it was given back already, and what waits behind its key.

A projection that declares `key_ordered` (topics) takes the records of one key in order: while one of them stands in quarantine, the
later ones are set aside too, with the reason `waits_for_key`, and a replay applies them in order of offset. What stands aside is read
from the quarantine topic whenever the position is loaded; only places and keys are kept, never payloads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from domain.log import Position, TopicPartition
from projections.protocol import EventBatch, Rejection
from projections.quarantine import WAITS_FOR_KEY, QuarantineKey, is_closed, place_in, replayed_places
from projections.records import RecordBatch

Place = tuple[str, int, int]
Key = tuple[str, int, bytes]
"""(topic, partition, record key): order is promised within a partition."""
ReadQuarantine = Callable[[Position], tuple[Iterable[tuple[str, Mapping[str, Any], int]], Position]]
"""The events of the quarantine topic (type, record, time) from a position to the end, and the position after them."""


class KeyOrder:
    """Keeps one projection's records in order of their key, and its decisions kept.

    Args:
        projection: its name in the quarantine topic.
        key_ordered: the topics whose records of one key must be taken in order.
        read: reads the quarantine topic; none while a generation is built, which decides anew what it cannot take.
        load_position: the store's position, asked again once entries were closed: it names what was given back.
        aside: entries that stand aside from the start, as (entry, record key).
        dropped: records that this projection gave up.
    """

    def __init__(
        self,
        projection: str,
        key_ordered: frozenset[str],
        read: ReadQuarantine | None = None,
        load_position: Callable[[], Position] = dict,
        aside: Iterable[tuple[QuarantineKey, bytes | None]] = (),
        dropped: Iterable[QuarantineKey] = (),
    ) -> None:
        self._projection, self._ordered, self._read, self._load_position = projection, key_ordered, read, load_position
        self._end: Position = {}
        self._open: dict[TopicPartition, set[int]] = {}
        self._never: dict[TopicPartition, set[int]] = {}
        self._keys: dict[Key, set[int]] = {}
        self._key_at: dict[Place, bytes] = {}
        for entry, key in aside:
            self._opened(entry, key)
        for entry in dropped:
            self._gave_up(entry)

    def loaded(self, position: Position) -> None:
        """The store's position was read: know anew what stands aside, was given up, or was given back to this store."""
        if self._read is not None:
            self._end, self._open, self._never, self._keys, self._key_at = {}, {}, {}, {}, {}
            self._read_on()
        self._given_back(position)

    def hold(
        self, batches: Sequence[RecordBatch], events: EventBatch, rejections: Sequence[Rejection], known: frozenset[Place]
    ) -> tuple[list[Rejection], frozenset[Place]]:
        """What else of these records is not to be applied now.

        Args:
            rejections: records found bad.
            known: records that stand in quarantine durably.

        Returns:
            All records to leave out of `events`, and of them those that must not be put into quarantine again.
        """
        out, durable = self._held(batches, events, rejections, known)
        is_waiting = any(rejection.reason == WAITS_FOR_KEY for rejection in out)
        # Someone may have given back meanwhile what these wait for: the topic says that, and then the store what it has got.
        if is_waiting and self._read is not None and self._read_on():
            self._given_back(self._load_position())
            out, durable = self._held(batches, events, rejections, known)
        return out, durable

    def _held(
        self, batches: Sequence[RecordBatch], events: EventBatch, rejections: Sequence[Rejection], known: frozenset[Place]
    ) -> tuple[list[Rejection], frozenset[Place]]:
        out = list(rejections)
        durable = set(known)
        for batch in batches:
            for place in self._settled(batch):
                out.append(Rejection(*place, "settled", "it stands in quarantine, was given up, or was given back already"))
                durable.add(place)
        return (out + self._waiting(batches, events, out) if self._ordered else out), frozenset(durable)

    def set_aside(self, batches: Sequence[RecordBatch], rejections: Sequence[Rejection]) -> None:
        """These records stand in quarantine now, durably."""
        wanted = {(r.topic, r.partition, r.offset) for r in rejections}
        for batch in batches:
            if batch.topic in self._ordered:
                for place, key in _keyed(batch):
                    if place in wanted and key is not None:
                        self._hold_key(place, key)

    def _settled(self, batch: RecordBatch) -> list[Place]:
        found: list[Place] = []
        for kept in (self._open, self._never):
            for topic, partition in [tp for tp in kept if tp[0] == batch.topic]:
                offsets, here = kept[topic, partition], batch.offsets[batch.partitions == partition]
                if not len(here):
                    continue
                if max(offsets) < int(here.min()):
                    del kept[topic, partition]  # records come in order: none of these comes again before the position is loaded anew
                    continue
                found += [(topic, partition, offset) for offset in here.tolist() if offset in offsets]
        return list(dict.fromkeys(found))

    def _waiting(self, batches: Sequence[RecordBatch], events: EventBatch, out: Sequence[Rejection]) -> list[Rejection]:
        gone = {(r.topic, r.partition, r.offset) for r in out}
        # Settled places hold their key only while they are open: those stand in `_keys` already.
        bad = {(r.topic, r.partition, r.offset) for r in out if r.reason != "settled"}
        first = {key: min(offsets) for key, offsets in self._keys.items() if offsets}
        taken: set[Place] | None = None
        found = []
        for batch in batches:
            if batch.topic not in self._ordered or not (first or bad):
                continue
            for place, key in _keyed(batch):
                if key is None:
                    continue
                name = (batch.topic, place[1], key)
                if place in bad:
                    first[name] = min(first.get(name, place[2]), place[2])
                elif place not in gone and first.get(name, place[2]) < place[2]:
                    taken = _places_of(events, self._ordered) if taken is None else taken
                    if place in taken:
                        message = f"{batch.topic}/{place[1]}/{first[name]} of the same key stands in quarantine"
                        found.append(Rejection(*place, WAITS_FOR_KEY, message))
        return found

    def _read_on(self) -> bool:
        """Take in what the quarantine topic has got since; tells whether there was anything."""
        assert self._read is not None
        events, end = self._read(self._end)
        if end == self._end:
            return False
        for name, value, _ in events:
            if value["projection"] == self._projection:
                self._take(name, value)
        self._end = end
        return True

    def _take(self, name: str, value: Mapping[str, Any]) -> None:
        entry = place_in(value)
        if name == "RecordQuarantined":
            self._opened(entry, value["key"])
            _remove(self._never, entry)
        elif is_closed(name, value):
            was_open = entry[3] in self._open.get((entry[1], entry[2]), ())
            _remove(self._open, entry)
            key = self._key_at.pop(entry[1:], None)
            if key is not None:
                offsets = self._keys[entry[1], entry[2], key]
                offsets.discard(entry[3])
                if not offsets:
                    del self._keys[entry[1], entry[2], key]
            if name == "QuarantineDropped" and was_open:
                self._gave_up(entry)
            elif name == "QuarantineReplayed":
                _remove(self._never, entry)

    def _opened(self, entry: QuarantineKey, key: bytes | None) -> None:
        _, topic, partition, offset = entry
        self._open.setdefault((topic, partition), set()).add(offset)
        if topic in self._ordered and key is not None:
            self._hold_key((topic, partition, offset), key)

    def _hold_key(self, place: Place, key: bytes) -> None:
        self._key_at[place] = key
        self._keys.setdefault((place[0], place[1], key), set()).add(place[2])

    def _gave_up(self, entry: QuarantineKey) -> None:
        if entry[0] == self._projection:
            self._never.setdefault((entry[1], entry[2]), set()).add(entry[3])

    def _given_back(self, position: Position) -> None:
        for topic, partition, offset in replayed_places(position):
            self._never.setdefault((topic, partition), set()).add(offset)


def _keyed(batch: RecordBatch) -> Iterator[tuple[Place, bytes | None]]:
    for partition, offset, key in zip(batch.partitions.tolist(), batch.offsets.tolist(), batch.keys, strict=True):
        yield (batch.topic, partition, offset), key


def _places_of(events: EventBatch, topics: frozenset[str]) -> set[Place]:
    """Where the decoded events of these topics stand: a record that is not read has nothing to wait for."""
    found: set[Place] = set()
    for table in events.tables.values():
        rows = zip(*(table[name].to_pylist() for name in ("_topic", "_partition", "_offset")), strict=True)
        found.update(place for place in rows if place[0] in topics)
    return found


def _remove(kept: dict[TopicPartition, set[int]], entry: QuarantineKey) -> None:
    offsets = kept.get((entry[1], entry[2]))
    if offsets is not None:
        offsets.discard(entry[3])
        if not offsets:
            del kept[(entry[1], entry[2])]
