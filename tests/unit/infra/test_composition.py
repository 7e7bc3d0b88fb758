"""The composition root: what can be told without a server."""

from __future__ import annotations

import pytest

from domain.errors import InvalidValue
from infra.composition import WORKERS, Composition
from infra.read_models import BUILT_IN
from infra.settings import CuratedSettings, S3Settings, Settings, WarehouseSettings

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
