"""The command handler on a real log: every command is accounted for, whatever it holds and whenever the process dies."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from domain.commands import FreezeWallet, ReleaseWallet
from domain.errors import Fenced
from infra.command_handler import CommandHandler
from infra.composition import AUTHORISED, Composition, Worker
from infra.quarantine_replay import with_payload
from infra.seen_transactions import SeenTransactions
from projections.runner import FlushPolicy, Runner
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS, WALLET_EVENTS
from schema_registry.record_codec import RecordCodec
from schema_registry.wire import frame
from tests.integration.infra.own_log import own_log
from tests.shared_servers import SharedServers
from tests.unit.domain.facts import AT, transaction

HOSTILE = ["'); DROP TABLE x;--", "'}) DETACH DELETE w //", "<script>", "=cmd|' /C calc'!A0", "[red]", "\u202e", "名前 🚀"]


@pytest.fixture(scope="module")
def composition(shared_servers: SharedServers) -> Iterator[Composition]:
    with own_log(shared_servers, ["kafka", "registry", "s3"]) as log:
        yield log.composition


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "seen"


@contextmanager
def started(composition: Composition, folder: Path) -> Iterator[tuple[CommandHandler, Worker]]:
    """A handler as the composition root builds it, on its own folder."""
    admin = composition.clients.admin
    seen = SeenTransactions(folder, admin.log_id())
    handler = CommandHandler(composition.clients.catalog, seen, AUTHORISED, lambda: admin.ends([TRANSACTION_EVENTS]))
    worker = composition._transformer(handler, FlushPolicy(500, 0.0))
    handler.restore(composition.log.read)
    yield handler, worker
    seen.close()


def run(composition: Composition, folder: Path) -> int:
    """Handle what waits; returns the next seq."""
    with started(composition, folder) as (handler, worker):
        Runner(worker.source, worker.work, worker.policy).run(Event(), until=composition.log.ends([COMMANDS]))
        return handler.next_seq()


def send(composition: Composition, *values: bytes | None) -> None:
    composition.producer.send(COMMANDS, [b"k"] * len(values), values)
    composition.producer.flush()


def encoded(composition: Composition, *events: Any) -> list[bytes]:
    codec = RecordCodec(composition.clients.catalog)
    return [codec.encode_event(event) for event in events]


def counts(composition: Composition) -> dict[str, int]:
    """What became of all commands; the log's own proof must hold."""
    proof = composition.verifier().log()
    assert proof.is_ok, proof.problems
    return {"commands": proof.records, **proof.excluded}


def tx_ids(composition: Composition, prefix: str) -> list[str]:
    """The recorded transactions of one test, in order of seq."""
    codec = RecordCodec(composition.clients.catalog)
    found: list[tuple[int, str]] = []
    for batch in composition.log.read([TRANSACTION_EVENTS], {}):
        rows = [codec.decode(value)[1]["tx_id"] for value in batch.values]
        found += zip(batch.seqs().tolist(), rows, strict=True)
    return [tx_id for _, tx_id in sorted(found) if tx_id.startswith(prefix)]


def numbered(prefix: str, numbers: Sequence[int], **changes: Any) -> list[Any]:
    return [transaction(**{"tx_id": f"{prefix}{n}:0", **changes}) for n in numbers]


def test_every_command_is_accounted_for_whatever_it_holds(composition: Composition, folder: Path) -> None:
    run(composition, folder)
    before = counts(composition)
    rng = random.Random(7)
    good = [transaction(tx_id=f"ethereum:mix{i}{text}", asset=text) for i, text in enumerate(HOSTILE)]
    old = transaction(tx_id="ethereum:mix-2015", occurred_at=datetime(2015, 8, 7, tzinfo=UTC))
    conflicts = [
        transaction(tx_id=good[0].tx_id, asset=HOSTILE[0], amount=Decimal(9)),
        transaction(tx_id=good[0].tx_id, asset=HOSTILE[0], source_wallet_id="ethereum:0xother"),
    ]
    refused = [
        transaction(tx_id="ethereum:mix-negative", amount=Decimal("-1")),
        transaction(tx_id="ethereum:mix-future", occurred_at=datetime.now(UTC) + timedelta(days=400)),
        transaction(tx_id="ethereum:mix-epoch", occurred_at=datetime(1969, 1, 1, tzinfo=UTC)),
        transaction(tx_id="ethereum:mix\x1b[2J"),
        transaction(tx_id="card:mix", network="ethereum"),
        transaction(tx_id="ethereum:" + "x" * 100_000),
    ]
    (whole,) = encoded(composition, transaction(tx_id="ethereum:mix-cut"))
    noise = [
        *(rng.randbytes(rng.randint(0, 300)) for _ in range(20)),
        b"\x00" + rng.randbytes(200), rng.randbytes(999_850), None, b"", frame(4_000_000_000, b"x"), whole + b"!", whole[:-1],
        whole[:5] + rng.randbytes(60),
    ]  # fmt: skip
    (not_a_command,) = encoded(composition, _frozen_event())
    commands: list[bytes | None] = [*encoded(composition, *good, old, *good, *conflicts, *refused), *noise, not_a_command]
    rng.shuffle(noise)
    send(composition, *commands)
    run(composition, folder)
    after = counts(composition)
    found = {name: after[name] - before.get(name, 0) for name in after}
    assert found == {
        "commands": len(commands), "recorded": len(good) + 1, "duplicates": len(good), "held": 0, "decided": 0,
        "quarantined": len(noise) + 1, "refused": len(conflicts) + len(refused),
    }  # fmt: skip
    assert tx_ids(composition, "ethereum:mix") == [tx.tx_id for tx in [*good, old]]
    entries = [entry for entry in composition.log.quarantine().values() if entry.projection == "command-handler"]
    payloads = {with_payload(composition, entry).record.value for entry in entries}
    assert payloads >= {value or None for value in noise} - {None, b""}


def _frozen_event() -> Any:
    from domain.events import WalletFrozen

    return WalletFrozen("ethereum:0xa", "r", "ann", AT)


@pytest.mark.parametrize("loss", ["empty", "stale", "none"])
def test_a_restart_gives_the_same_seq_and_no_double_event(composition: Composition, folder: Path, loss: str) -> None:
    prefix = f"ethereum:restart-{loss}-"
    first = encoded(composition, *numbered(prefix, range(40)))
    send(composition, *first[:20])
    run(composition, folder)
    if loss == "stale":
        shutil.copytree(folder, folder.with_name("stale"))
    send(composition, *first[20:])
    next_seq = run(composition, folder)
    if loss != "none":
        shutil.rmtree(folder)
    if loss == "stale":
        folder.with_name("stale").rename(folder)
    with started(composition, folder) as (handler, _):
        assert handler.next_seq() == next_seq
    send(composition, *first, *encoded(composition, *numbered(prefix, [99])))
    assert run(composition, folder) == next_seq + 1
    assert tx_ids(composition, prefix) == [f"{prefix}{n}:0" for n in [*range(40), 99]]
    counts(composition)


def test_a_restart_that_dies_halfway_through_the_log_forgets_nothing(composition: Composition, folder: Path) -> None:
    prefix = "ethereum:halfway-"
    first = encoded(composition, *numbered(prefix, range(30)))
    send(composition, *first)
    next_seq = run(composition, folder)
    shutil.rmtree(folder)
    admin = composition.clients.admin
    seen = SeenTransactions(folder, admin.log_id())
    dying = CommandHandler(composition.clients.catalog, seen, AUTHORISED, lambda: admin.ends([TRANSACTION_EVENTS]))
    dying._marked_at -= 3600  # a restore that takes long

    def one_batch_then_death(topics: Sequence[str], start: Any) -> Iterator[Any]:
        for batch in composition.log.read(topics, start):
            import numpy as np

            yield batch.take(np.arange(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dying.restore(one_batch_then_death)
    seen.close()
    send(composition, *first)
    assert run(composition, folder) == next_seq
    assert len(tx_ids(composition, prefix)) == 30


def test_what_a_frozen_wallet_sends_waits_once_even_when_the_disk_is_lost(composition: Composition, folder: Path) -> None:
    wallet = "card:frozen-one"
    held = [transaction(tx_id=f"card:held{n}:0", network="card", source_wallet_id=wallet, target_wallet_id=None) for n in range(3)]
    freeze, release = FreezeWallet(wallet, "court", "ann", AT), ReleaseWallet(wallet, "checked", "bob", AT)
    run(composition, folder)
    before = counts(composition)
    send(composition, *encoded(composition, freeze, *held))
    run(composition, folder)
    assert tx_ids(composition, "card:held") == []
    shutil.rmtree(folder)
    send(composition, *encoded(composition, *held, release, *held))
    run(composition, folder)
    after = counts(composition)
    assert {name: after[name] - before[name] for name in ("held", "duplicates", "decided", "refused")} == {
        "held": 3,
        "duplicates": 6,
        "decided": 2,
        "refused": 0,
    }
    assert tx_ids(composition, "card:held") == [tx.tx_id for tx in held]
    codec = RecordCodec(composition.clients.catalog)
    names = [codec.decode(v)[0] for b in composition.log.read([WALLET_EVENTS], {}) for v in b.values]
    assert names.count("TransactionHeld") == names.count("TransactionReleased") == 3


def test_a_second_handler_fences_the_first(composition: Composition, folder: Path) -> None:
    with started(composition, folder) as (_, first):
        next_seq = run(composition, folder.with_name("second"))
        send(composition, *encoded(composition, *numbered("ethereum:fenced-", range(3))))
        with pytest.raises(Fenced, match="tidemark-command-handler has taken over: this one stops"):
            Runner(first.source, first.work, first.policy).run(Event(), until=composition.log.ends([COMMANDS]))
    assert tx_ids(composition, "ethereum:fenced-") == []
    assert run(composition, folder.with_name("third")) == next_seq + 3
    counts(composition)
