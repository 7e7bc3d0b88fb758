"""Servers that test modules use one after the other: who needs them empty has them emptied, nobody waits for a start again.

A start of all of them takes some twenty seconds of both cores, making them empty one or two. Whoever damages a server itself
(kills it, changes its configuration) takes servers of its own instead.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import psycopg
from botocore.exceptions import ClientError
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient

from infra.clients import Clients
from infra.settings import Settings
from infra.stack import Stack
from infra.stack.part import SERVERS
from infra.stack.postgres import DATABASE

KEPT: Final = ("kafka", "registry", "s3", "postgres")
"""Servers that go on running; the others are cheap, or keep more than can be deleted (Neo4j's generations): they begin anew."""
EMPTY_S: Final = 120.0


class SharedServers:
    """One stack, whose servers are started when the first module wants them and stopped by `close`.

    Args:
        settings: of a stack in a folder of its own, no server given.
    """

    def __init__(self, settings: Settings) -> None:
        self.stack = Stack.of(settings)

    def emptied(self, parts: Sequence[str]) -> None:
        """Have these servers run with nothing in them, as after a first start, and none but them and `KEPT`.

        Contracts may be registered already.
        """
        running = self.stack.status()
        kept = [name for name in KEPT if name in running]
        self.stop_workers()
        self.stack.stop_parts(set(SERVERS) - set(kept))
        if kept:
            self._clear(kept)
        self.stack.up(parts, is_tethered=True)

    def stop_workers(self) -> None:
        """Stop every worker that was left running, all at once."""
        with self.stack.state.change_desired() as box:
            names = set(box[0].workers)
            box[0] = replace(box[0], workers={})
        deadline = time.monotonic() + EMPTY_S
        while names & set(self.stack.status()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"of the workers {sorted(names)} some still run after {EMPTY_S:.0f} s")
            time.sleep(0.05)

    def close(self) -> None:
        """Stop every server."""
        self.stack.down()

    def _clear(self, kept: Sequence[str]) -> None:
        self.stack.wait_ready(kept)  # one may just be coming back
        clients = Clients(self.stack.settings())
        if "kafka" in kept:
            _forget_topics(AdminClient(clients.kafka))
        if "s3" in kept:
            _empty_bucket(clients)
        if "postgres" in kept:
            _new_database(clients)
        clients.close()
        # The workers' own state, notes, packages, and the folders of servers that begin anew.
        for folder in self.stack.state.folder.iterdir():
            if folder.is_dir() and folder.name not in (*kept, "logs"):
                shutil.rmtree(folder)
        for log in self.stack.state.logs.iterdir():
            if log.stem not in (*kept, "supervisor"):
                log.unlink()


def _forget_topics(admin: AdminClient) -> None:
    """Delete every topic, and wait until no group remembers an offset of one: what is made anew begins at nothing."""
    names = [name for name in admin.list_topics(timeout=EMPTY_S).topics if not name.startswith("__")]
    if names:
        for future in admin.delete_topics(names, operation_timeout=EMPTY_S).values():
            future.result()
    deadline = time.monotonic() + EMPTY_S
    while set(names) & set(admin.list_topics(timeout=EMPTY_S).topics) or _remembers(admin):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Kafka still knows the topics {names}, or offsets of them, after {EMPTY_S:.0f} s")
        time.sleep(0.05)


def _remembers(admin: AdminClient) -> bool:
    """Whether a group has offsets; groups without a member are deleted on the way."""
    groups = [group.group_id for group in admin.list_consumer_groups().result().valid]
    if not groups:
        return False
    for deleted in admin.delete_consumer_groups(groups).values():
        with suppress(KafkaException):  # a member that was killed counts for another ten seconds; its offsets go all the same
            deleted.result()
    for group in groups:
        with suppress(KafkaException):  # it is gone
            (found,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
            if any(part.offset >= 0 for part in found.result().topic_partitions or ()):
                return True
    return False


def _empty_bucket(clients: Clients) -> None:
    bucket = clients.settings.s3.bucket
    try:
        for page in clients.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for found in page.get("Contents", ()):
                clients.s3.delete_object(Bucket=bucket, Key=found["Key"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise


def _new_database(clients: Clients) -> None:
    dsn = clients.settings.warehouse.dsn
    assert dsn is not None
    with psycopg.connect(dsn.get_secret_value(), dbname="postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {DATABASE}")
