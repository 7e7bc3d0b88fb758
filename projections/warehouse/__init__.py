"""The warehouse: facts, dimensions and views in Postgres (Redshift's dialect as DDL), proven against the log."""

from projections.warehouse.ddl import ddl
from projections.warehouse.generations import SchemaGenerations, WarehouseGenerations
from projections.warehouse.sink import WarehouseProjection

__all__ = ["SchemaGenerations", "WarehouseGenerations", "WarehouseProjection", "ddl"]
