"""What a policy's rules would have said of transactions that are there already: of a file, or of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from domain.policy import Policy
from domain.rules import RuleEngine
from infra.composition import Composition
from infra.rule_alerts import RULE_FIELDS, rule_rows
from infra.sources.mapping import TransactionMapping
from infra.sources.reading import read
from projections.merge import SeqMerge
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS

EXAMPLES = 3


@dataclass(slots=True)
class RuleOutcome:
    """How often a rule spoke, of how many wallets, and the first few times: (tx_id, wallet, sentence)."""

    hits: int = 0
    wallets: set[str] = field(default_factory=set)
    examples: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Trial:
    """What a policy said of transactions. `alerted` are the wallets that any rule spoke of; `seconds` is the rules' own time."""

    transactions: int = 0
    rules: dict[str, RuleOutcome] = field(default_factory=dict)
    alerted: set[str] = field(default_factory=set)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain values."""
        return {
            "transactions": self.transactions,
            "alerted_wallets": len(self.alerted),
            "transactions_per_s": round(self.transactions / self.seconds) if self.seconds else None,
            "rules": [
                {"rule": name, "hits": found.hits, "wallets": len(found.wallets), "examples": found.examples}
                for name, found in self.rules.items()
            ],
        }


def of_file(source: str, mapping: TransactionMapping, key: bytes | None = None) -> Iterator[pa.Table]:
    """The transactions of a file in its order; rows that are none are left out.

    Raises:
        SourceError: the file or the mapping cannot be read.
    """
    for chunk in read(source, mapping, ingest_id="trial", catalog=SchemaCatalog.numbered(), key=key, now=lambda: datetime.now(UTC)):
        yield chunk.table


def of_log(composition: Composition) -> Iterator[pa.Table]:
    """The log's transactions in order of seq.

    Raises:
        HistoryIncomplete: neither Kafka nor the archive has them all.
        LogError: Kafka does not answer.
    """
    codec, merge = ColumnCodec(composition.clients.catalog, {"TransactionRecorded": RULE_FIELDS}), SeqMerge(0)
    for batch in composition.log.read([TRANSACTION_EVENTS], {}):
        for ready in merge.push(batch)[0]:
            found = codec.decode(ready.values).tables.get("TransactionRecorded")
            if found is not None:
                yield found.table


def try_policy(policy: Policy, tables: Iterator[pa.Table], progress: Callable[[int], None] = lambda done: None) -> Trial:
    """Let a policy's rules judge transactions, in the order given.

    Args:
        tables: columns `tx_id`, `amount`, `occurred_at` and of `TEXT_FIELDS` those that there are; any others are ignored.
    """
    engine = RuleEngine(policy)
    trial = Trial(rules={rule.name: RuleOutcome() for rule in policy.rules})
    for table in tables:
        rows = list(rule_rows(table))
        started = time.perf_counter()
        for row in rows:
            for hit in engine.judge(row):
                found = trial.rules[hit.rule]
                found.hits += 1
                found.wallets.add(hit.wallet_id)
                trial.alerted.add(hit.wallet_id)
                if len(found.examples) < EXAMPLES:
                    found.examples.append((row["tx_id"], hit.wallet_id, hit.says))
        trial.seconds += time.perf_counter() - started
        trial.transactions += len(rows)
        progress(trial.transactions)
    return trial
