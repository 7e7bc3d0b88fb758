"""How many partitions each topic has by the log's own word: the contracts' number, then what each `TopicGrown` says.

A topic that has more was grown by somebody else. Whoever reads it stops before the first record of the new partitions: of a topic
whose keys must stay in order, later records of a key could be applied before earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from domain.errors import LogError
from domain.log import TopicPartition
from infra.kafka.admin import TopicAdmin
from schema_registry.contracts import ORDERED_BY_SEQ, PARTITIONS


class GrownElsewhere(LogError):
    """A topic has more partitions than the log says. The message names it and what to do."""


class PartitionBook:
    """What the log knows of its topics' partitions. Topics without a contract may have any number.

    Args:
        grown: reads the number of partitions of each topic that was grown with our knowledge.
    """

    def __init__(self, admin: TopicAdmin, grown: Callable[[], Mapping[str, int]]) -> None:
        self._admin, self._grown = admin, grown
        self._known: dict[str, int] = dict(PARTITIONS)

    def of(self, topics: Iterable[str], timeout_s: float | None = None) -> list[TopicPartition]:
        """Every partition of these topics that exists.

        Raises:
            GrownElsewhere: one of them has more than the log says.
            Unanswered: Kafka does not answer.
        """
        found = self._admin.partitions(topics, timeout_s)
        self.admit(found)
        return found

    def admit(self, found: Sequence[TopicPartition]) -> None:
        """Demand that the log knows these partitions; where it seems not to, it is read again first.

        Raises:
            GrownElsewhere: one of them is not known.
        """
        if not self._unknown(found):
            return
        self._known.update(self._grown())
        for topic, partition in sorted(self._unknown(found)):
            known = self._known[topic]
            advice = (
                f"If the new ones are to stay, `tidemark topics grow {topic} --partitions N` with the number it has now takes them in"
                if topic in ORDERED_BY_SEQ
                else "The order of its keys is that of its partitions and is not to be trusted from there on: it has to be made anew, with"
                f" {known}"
            )
            raise GrownElsewhere(
                f"topic {topic} has a partition {partition}, the log knows {known} partitions of it: it was grown by other means than"
                f" `tidemark topics grow`. Nothing of the new ones was read. {advice}"
            )

    def _unknown(self, found: Sequence[TopicPartition]) -> list[TopicPartition]:
        return [(topic, partition) for topic, partition in found if topic in self._known and partition >= self._known[topic]]
