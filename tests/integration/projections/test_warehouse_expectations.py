"""Great Expectations on rows read back, with pages that load nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from projections.warehouse import WarehouseProjection
from projections.warehouse.expectations import validate_warehouse
from tests.unit.projections.warehouse.databases import fresh_database, query
from tests.unit.projections.warehouse.events import Placed, batch_of, embedded, position_after, scored, transaction


def test_good_rows_meet_expectations_and_altered_rows_do_not(postgres_dsn: str, tmp_path: Path) -> None:
    placed = [Placed(transaction(i), i % 6, i // 6) for i in range(90)]
    placed += [Placed(scored(1), 0, 0), Placed(embedded("a:b"), 0, 0)]
    with fresh_database(postgres_dsn) as dsn:
        warehouse = WarehouseProjection(dsn)
        warehouse.apply(batch_of(placed), {}, position_after(placed))
        good = {one.table: one for one in validate_warehouse(dsn, tmp_path)}
        query(dsn, "UPDATE warehouse_g1.fact_transaction SET amount = -amount, tx_id = 'a:same' WHERE seq < 4")
        query(dsn, "UPDATE warehouse_g1.fact_score SET score = 1.5")
        bad = {one.table: one for one in validate_warehouse(dsn, tmp_path)}
    assert set(good) == {"fact_transaction", "fact_score", "fact_wallet_embedding"}
    assert all(one.success and not one.failed for one in good.values())
    assert good["fact_transaction"].statistics["evaluated_expectations"] >= 10
    assert not bad["fact_transaction"].success and not bad["fact_score"].success
    assert any("amount" in sentence for sentence in bad["fact_transaction"].failed)
    assert any("tx_id" in sentence for sentence in bad["fact_transaction"].failed)
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
