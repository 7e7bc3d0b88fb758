"""The warehouse on Redshift: Amazon's driver, SQLAlchemy's dialect, COPY from S3, against a proxy before a real Postgres."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.settings import S3Settings
from tests.integration.projections.redshift_store import RedshiftStore, redshift_store
from tests.integration.projections.test_warehouse_sink import one_of_each
from tests.unit.projections.warehouse.comparison import expected_rows, stored_rows
from tests.unit.projections.warehouse.events import batch_of, position_after


@pytest.fixture
def store(postgres_dsn: str, s3_settings: S3Settings) -> Iterator[RedshiftStore]:
    with redshift_store(postgres_dsn, s3_settings) as found:
        yield found


def test_rows_and_checkpoint_are_stored_together_and_equal_the_log(store: RedshiftStore) -> None:
    warehouse = store.warehouse()
    placed = one_of_each()
    batch, after = batch_of(placed), position_after(placed)
    warehouse.apply(batch, {}, after)
    assert warehouse.load_position() == after
    assert stored_rows(warehouse) == expected_rows(warehouse, batch)
