"""The warehouse: facts, dimensions and views in Postgres (Redshift's dialect as DDL), proven against the log."""

from projections.warehouse.ddl import ddl
from projections.warehouse.generations import WarehouseGenerations
from projections.warehouse.sink import WarehouseProjection

__all__ = ["WarehouseGenerations", "WarehouseProjection", "ddl"]
