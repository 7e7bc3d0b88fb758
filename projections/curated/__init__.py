"""The curated table: decoded transactions in Apache Iceberg on S3, for Spark, Athena, DuckDB, polars and whatever else reads it."""

from projections.curated.catalog import CuratedCatalog
from projections.curated.sink import CuratedProjection
from projections.curated.upkeep import Upkeep

__all__ = ["CuratedCatalog", "CuratedProjection", "Upkeep"]
