"""Rows that the wallet graph cannot hold are named before they reach it."""

from __future__ import annotations

import pytest

from projections.wallet_graph_screen import screen_batch
from tests.integration.projections.wallet_graph_log import SmallLog, everything


def _bad(change: str) -> SmallLog:
    log = SmallLog()
    match change:
        case "newline":
            log.send("test:a\nb", "test:b")
        case "too long":
            log.send("test:a", "test:" + "b" * 300)
        case "empty":
            log.send("test:a", "test:b", tx_id="")
        case "negative":
            log.send("test:a", "test:b", "-1")
        case "not a number":
            log.score("test:tx0:0", 0, "test:a", "test:b", float("nan"), 0.1)
        case "infinite vector":
            log.embed("test:a", 0, float("inf"), 1.0)
        case "zero vector":
            log.embed("test:a", 0, 0.0, 0.0)
        case "cut vector":
            log.add(
                "WalletEmbedded", "test:a", wallet_id="test:a", vector=b"\0\0\0", dimensions=1, model_version="m",
                as_of_seq=0,
            )  # fmt: skip
    return log


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("newline", "unsafe_identifier"),
        ("too long", "unsafe_identifier"),
        ("empty", "unsafe_identifier"),
        ("negative", "negative_amount"),
        ("not a number", "invalid_score"),
        ("infinite vector", "invalid_vector"),
        ("zero vector", "invalid_vector"),
        ("cut vector", "invalid_vector"),
    ],
)
def test_a_row_that_breaks_a_rule_is_rejected_with_its_place(change: str, reason: str) -> None:
    ((rejection,),) = [screen_batch(batch) for batch in _bad(change).whole()]
    assert rejection.reason == reason
    assert rejection.offset == 0
    assert reason in rejection.message
    assert "\n" not in rejection.message


def test_a_sound_log_is_let_through() -> None:
    assert all(screen_batch(batch) == [] for batch in everything().whole())
