"""Great Expectations on rows read back, with pages that load nothing from elsewhere."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from domain.events import TransactionRecorded, TransactionStatus
from projections.warehouse import WarehouseProjection
from projections.warehouse.expectations import validate_warehouse
from projections.warehouse.suites import BatchValidation
from tests.unit.projections.warehouse.databases import fresh_database, query
from tests.unit.projections.warehouse.events import Placed, batch_of, embedded, position_after, scored, transaction


def test_good_rows_meet_expectations_and_altered_rows_do_not(postgres_dsn: str, tmp_path: Path) -> None:
    placed = [Placed(transaction(i), i % 6, i // 6) for i in range(90)]
    placed += [Placed(scored(1), 0, 0), Placed(embedded("a:b"), 0, 0)]
    with fresh_database(postgres_dsn) as dsn:
        warehouse = WarehouseProjection(dsn)
        warehouse.apply(batch_of(placed), {}, position_after(placed))
        good = {one.table: one for one in validate_warehouse(dsn, tmp_path)}
        query(dsn, "UPDATE warehouse_g1.fact_transaction SET amount = -amount, seq = 0 WHERE seq < 4")
        query(dsn, "UPDATE warehouse_g1.fact_score SET score = 1.5")
        bad = {one.table: one for one in validate_warehouse(dsn, tmp_path)}
    assert set(good) == {"fact_transaction", "fact_score", "fact_wallet_embedding"}
    assert all(one.success and not one.failed for one in good.values())
    assert good["fact_transaction"].statistics["evaluated_expectations"] >= 10
    assert not bad["fact_transaction"].success and not bad["fact_score"].success
    assert any("amount" in sentence for sentence in bad["fact_transaction"].failed)
    assert any("seq" in sentence for sentence in bad["fact_transaction"].failed)
    assert bad["fact_wallet_embedding"].success
    index = bad["fact_transaction"].docs_index
    links = re.findall(r'href="([^"]+)"', index.read_text("utf-8"))
    assert len(links) == 3 and all((index.parent / link).is_file() for link in links)
    assert index.read_text("utf-8").count("some are broken") == 2


def test_data_docs_ask_no_server(postgres_dsn: str, tmp_path: Path) -> None:
    placed = [Placed(transaction(i), 0, i) for i in range(5)]
    with fresh_database(postgres_dsn) as dsn:
        WarehouseProjection(dsn).apply(batch_of(placed), {}, position_after(placed))
        validate_warehouse(dsn, tmp_path)
    pages = [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]
    assert pages
    for page in pages:
        text = page.read_text("utf-8")
        assert not re.search(r"""(<script|<link|<img)[^>]*https?://|url\(\s*['"]?https?:""", text), page


def test_a_day_unlike_those_before_it_is_drift_and_one_like_them_is_not(postgres_dsn: str, tmp_path: Path) -> None:
    at = datetime(2026, 3, 1, 1, tzinfo=UTC)
    last = at + timedelta(days=9)

    def moved(n: int, occurred_at: datetime, amount: int = 10, target: str | None = "ethereum:0xb") -> TransactionRecorded:
        fields = {"network": "ethereum", "asset": "ETH", "status": TransactionStatus.SETTLED, "target_wallet_id": target}
        return transaction(n, occurred_at=occurred_at, amount=Decimal(amount), **fields)

    usual = [moved(n, at + timedelta(days=n // 60, minutes=n % 60), 10 + n % 7) for n in range(60 * 9)]
    with fresh_database(postgres_dsn) as dsn:
        warehouse = WarehouseProjection(dsn)

        def load(events: list[TransactionRecorded], partition: int) -> dict[str, BatchValidation]:
            placed = [Placed(event, partition, offset) for offset, event in enumerate(events)]
            warehouse.apply(batch_of(placed), {}, position_after(placed))
            return {one.table: one for one in validate_warehouse(dsn, tmp_path)}

        like = load([*usual, moved(9_000, last)], 0)
        (name,) = [name for name in like if name.startswith("drift-01-")]
        assert like[name].success and like[name].statistics["evaluated_expectations"] == 6
        # Of the next day most is missing, and what is there moves a hundred times as much to nobody.
        unlike = [moved(9_001 + n, last + timedelta(minutes=n), 1_000, None) for n in range(20)]
        found = load([*unlike, moved(9_900, last + timedelta(days=1))], 1)[name]
    assert not found.success
    assert {sentence.split()[2].rstrip(":") for sentence in found.failed} == {
        "transactions", "amount_median", "amount_p95", "without_target"
    }  # fmt: skip
    assert "ExpectColumnValuesToBeBetween".lower() in found.failed[0].replace("_", "").lower()
    assert "expected 30 to 120, found 21" in " ".join(found.failed)
