"""What the command handler remembers of the log: true for one log and one format, and for nobody without its secret."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np

from infra.seen_transactions import SeenTransactions

POSITION = {("transaction-events", 0): 7}


def named(seen: SeenTransactions, *texts: bytes) -> list[bytes]:
    ends = np.cumsum([len(text) for text in texts])
    return seen.keys_of(np.frombuffer(b"".join(texts), np.uint8), ends - [len(text) for text in texts], ends)


def filled(folder: Path, log_id: str = "log") -> list[bytes]:
    seen = SeenTransactions(folder, log_id)
    keys = named(seen, b"card:1", b"card:2")
    seen.add({key: b"digest-%d" % i for i, key in enumerate(keys)}, 2, POSITION)
    seen.close()
    return keys


def test_what_was_added_is_there_after_a_restart_under_the_same_names(tmp_path: Path) -> None:
    keys = filled(tmp_path)
    seen = SeenTransactions(tmp_path, "log")
    assert named(seen, b"card:1", b"card:2") == keys
    assert seen.digests([*keys, named(seen, b"card:3")[0]]) == [b"digest-0", b"digest-1", None]
    assert seen.state() == (2, POSITION)
    seen.close()


def test_a_store_of_another_log_is_emptied(tmp_path: Path) -> None:
    keys = filled(tmp_path)
    seen = SeenTransactions(tmp_path, "another")
    assert seen.digests(keys) == [None, None]
    assert seen.state() == (0, {})
    seen.close()


def test_a_store_from_before_names_were_keyed_is_emptied_and_filled_from_the_log(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path)) as old, old.begin(write=True) as transaction:
        transaction.put(b"\x00log", b"log")
        transaction.put(b"\x00state", b"\x00" * 8 + b"[]")
        transaction.put(b"t" + bytes(15), b"digest-0")
    seen = SeenTransactions(tmp_path, "log")
    assert seen.digests([b"t" + bytes(15)]) == [None]
    assert seen.state() == (0, {})
    seen.close()


def test_two_stores_name_the_same_transaction_differently(tmp_path: Path) -> None:
    one, other = SeenTransactions(tmp_path / "1", "log"), SeenTransactions(tmp_path / "2", "log")
    assert named(one, b"card:1") != named(other, b"card:1")
    assert len(named(one, b"card:1")[0]) == 16
    one.close()
    other.close()


def test_a_digest_is_eight_bytes_of_what_happened(tmp_path: Path) -> None:
    seen = SeenTransactions(tmp_path, "log")
    records = np.frombuffer(b"paid 1paid 1paid 2", np.uint8)
    first, second, third = seen.digests_of(records, np.array([0, 6, 12]), np.array([6, 12, 18]))
    assert first == second != third
    assert len(first) == 8
    seen.close()
