"""The composition root: what can be told without a server."""

from __future__ import annotations

import pytest

from domain.errors import InvalidValue
from infra.composition import WORKERS, Composition
from infra.read_models import BUILT_IN
from infra.settings import CuratedSettings, S3Settings, Settings, WarehouseSettings
from projections.errors import ProjectionError

REDSHIFT = WarehouseSettings.model_validate({"dsn": "redshift://u:p@host:5439/dev"})
POSTGRES = WarehouseSettings.model_validate({"dsn": "postgresql://u:p@host/warehouse"})
OWN = CuratedSettings.model_validate({"catalog": "postgresql://u:p@other/catalog"})


def test_every_read_model_has_a_worker() -> None:
    assert set(BUILT_IN) < set(WORKERS)


def test_the_curated_catalog_lies_in_the_warehouse_unless_a_database_is_named() -> None:
    assert Composition(Settings(warehouse=POSTGRES)).curated_dsn == "postgresql://u:p@host/warehouse"
    assert Composition(Settings(warehouse=POSTGRES, curated=OWN)).curated_dsn == "postgresql://u:p@other/catalog"


def test_redshift_is_no_catalog_and_the_message_says_what_to_set() -> None:
    composition = Composition(Settings(warehouse=REDSHIFT))
    with pytest.raises(InvalidValue, match="TIDEMARK_CURATED__CATALOG"):
        composition.curated(1)
    assert not composition.has_curated()
    assert Composition(Settings(warehouse=REDSHIFT, curated=OWN)).curated_dsn == "postgresql://u:p@other/catalog"


def test_iceberg_gets_the_keys_of_a_store_of_ones_own_and_searches_for_them_elsewhere() -> None:
    own = S3Settings.model_validate({"endpoint_url": "http://127.0.0.1:9", "access_key": "a", "secret_key": "s"}).iceberg_config()
    assert (own["s3.endpoint"], own["s3.access-key-id"], own["s3.secret-access-key"]) == ("http://127.0.0.1:9", "a", "s")
    assert not {"s3.endpoint", "s3.access-key-id", "s3.secret-access-key"} & set(S3Settings().iceberg_config())


def test_a_redshift_address_gives_the_redshift_warehouse_and_generations_and_opens_nothing() -> None:
    composition = Composition(Settings(warehouse=REDSHIFT))
    assert type(composition.warehouse(2)).__name__ == "RedshiftWarehouse"
    assert type(composition.schemas("warehouse")).__name__ == "RedshiftGenerations"
    with pytest.raises(ProjectionError, match="works on PostgreSQL alone"):
        composition.schemas("net_flow")


def test_an_address_that_is_no_redshift_is_refused_without_being_repeated() -> None:
    for dsn in ("redshift://u:secret@/dev", "redshift://u:secret@host:port/dev", "redshift+redshift_connector://u:secret@host"):
        with pytest.raises(ProjectionError) as caught:
            Composition(Settings(warehouse=WarehouseSettings.model_validate({"dsn": dsn}))).warehouse(1)
        assert "secret" not in str(caught.value)
