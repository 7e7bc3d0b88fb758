"""All stacks of the templates, made once in AWS' double."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.unit.infra.aws.double import BROKERS, IMAGE, PACKAGE, client, deploy


@pytest.fixture(scope="module")
def stacks() -> Iterator[dict[str, dict[str, str]]]:
    """Every stack in the double, made in the order of docs/aws.md: physical names by logical ones, by template."""
    with mock_aws():
        subnets = client("ec2").describe_subnets()["Subnets"][:3]
        network = {"VpcId": subnets[0]["VpcId"], "SubnetIds": ",".join(subnet["SubnetId"] for subnet in subnets)}
        graph = {"Neo4jUri": "neo4j+s://graph.example", "Neo4jLogin": "graph"}
        given = {
            "watch": {"AlarmMail": "ops@example.com"},
            "stores": network,
            "log": {},
            "operator": {"Image": IMAGE, "KafkaBootstrap": BROKERS},
            "workers": {"Image": IMAGE, "KafkaBootstrap": BROKERS, "HasModel": "true", **graph},
            "scoring": {"Image": IMAGE, "ModelDataUrl": PACKAGE},
            "lake": {"LandingBucket": "landing"},
        }
        yield {name: deploy(name, parameters) for name, parameters in given.items()}
