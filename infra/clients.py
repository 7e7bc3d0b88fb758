"""Clients of every server, made from the settings in one place and handed in to whoever needs them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config as BotoConfig

from infra.kafka.admin import TopicAdmin
from infra.settings import Settings
from schema_registry.catalog import SchemaCatalog
from schema_registry.client import Registry

NEO4J_RETRY_S = 20.0  # the driver's own default of 30 s hides a dead server for too long


class Clients:
    """Each client is made when first asked for, so that a worker connects only to what it uses."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def close(self) -> None:
        """Let go of every client made so far."""
        if "neo4j" in self.__dict__:
            self.neo4j.close()
        for name in ("admin", "registry", "catalog", "s3", "neo4j"):
            self.__dict__.pop(name, None)

    @cached_property
    def kafka(self) -> dict[str, Any]:
        """Options of Kafka clients."""
        return self.settings.kafka.client_config()

    @cached_property
    def admin(self) -> TopicAdmin:
        """Topics and offsets."""
        return TopicAdmin(self.kafka)

    @cached_property
    def registry(self) -> Registry:
        """The schema registry."""
        return Registry(self.settings.registry.client_config())

    @cached_property
    def catalog(self) -> SchemaCatalog:
        """Schema ids, as the registry holds them; refuses a registry that disagrees."""
        return self.registry.catalog()

    @cached_property
    def s3(self) -> Any:
        """The object store."""
        config = BotoConfig(signature_version="s3v4", retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=5, read_timeout=60)
        return boto3.client("s3", config=config, **self.settings.s3.client_config())

    @cached_property
    def neo4j(self) -> Any:
        """A Neo4j driver."""
        from neo4j import GraphDatabase, NotificationMinimumSeverity

        neo4j = self.settings.neo4j
        password = neo4j.password.get_secret_value() if neo4j.password is not None else ""
        return GraphDatabase.driver(
            neo4j.uri or "",
            auth=(neo4j.user, password),
            max_transaction_retry_time=NEO4J_RETRY_S,
            connection_acquisition_timeout=20.0,
            connection_timeout=5.0,
            notifications_min_severity=NotificationMinimumSeverity.OFF,
        )

    def aws(self, service: str) -> Any:
        """A client of one AWS service."""
        return boto3.client(service, **self.settings.aws.client_config())  # type: ignore[call-overload]
