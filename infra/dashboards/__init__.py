"""Dashboards: the page that `tidemark dashboard` writes from the warehouse, and definitions for other tools beside it."""

from infra.dashboards.gather import gather
from infra.dashboards.model import Dashboard
from infra.dashboards.page import render, write

__all__ = ["Dashboard", "gather", "render", "write"]
