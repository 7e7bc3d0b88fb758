"""Kafka: one KRaft node on loopback, without retention, able to restart within seconds after a kill.

With `secure` it also listens with TLS and SASL/SCRAM, as a user's own cluster would; the certificate is made here.
"""

from __future__ import annotations

import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from infra.stack.certificates import make_certificates
from infra.stack.errors import StackError
from infra.stack.java import class_path, java
from infra.stack.kafka_probe import check_coordinators_loaded, check_metadata_and_coordinators
from infra.stack.part import Part
from infra.stack.state import LOOPBACK, StackState, write_private

SCRAM_USER = "tidemark"
OWN_PROPERTIES = "own.properties"
"""A file in Kafka's folder whose lines are added last, so that they win: for a listener or a limit of one's own."""
# Enough for 250,000 messages a second (tried); 256m also starts but collects more.
HEAP = "512m"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners={listeners}
advertised.listeners={listeners}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
log.dirs={data}
num.partitions=6
default.replication.factor=1
min.insync.replicas=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.consumer.session.timeout.ms=45000
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.retention.ms=-1
log.segment.bytes=134217728
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.threads=1
# Without these two a restart after a kill waits 14 s for the old session to end.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=1000
"""

_SECURE_PROPERTIES = """\
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={keystore}
sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""

_LOG4J = """\
status = WARN
appender.console.type = Console
appender.console.name = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1} - %m%n
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = CONSOLE
logger.request.name = kafka.request.logger
logger.request.level = WARN
"""


def bootstrap(state: StackState) -> str:
    """Return the plain loopback address."""
    return f"{LOOPBACK}:{state.port('kafka', 'broker')}"


def secure_bootstrap(state: StackState) -> str:
    """Return the address of the TLS and SASL listener."""
    return f"localhost:{state.port('kafka', 'secure')}"


def ca_file(state: StackState) -> Path:
    """Return the certificate of the authority that signed the secure listener's own."""
    return state.part_folder("kafka") / "tls" / "ca.pem"


def kafka_part(state: StackState, *, is_secure: bool = False) -> Part:
    """Describe Kafka."""
    folder = state.part_folder("kafka")
    properties = folder / "server.properties"
    options = [
        "-Xms256m",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        "-cp",
        class_path("kafka"),
    ]

    def prepare() -> None:
        ports = state.ports("kafka")
        data = folder / "data"
        listeners = f"PLAINTEXT://{LOOPBACK}:{ports['broker']},CONTROLLER://{LOOPBACK}:{ports['controller']}"
        secure = ""
        if is_secure:
            keystore = make_certificates(folder / "tls")
            listeners += f",SECURE://localhost:{ports['secure']}"
            secure = _SECURE_PROPERTIES.format(keystore=keystore)
        text = _PROPERTIES.format(listeners=listeners, data=data, controller=ports["controller"]) + secure
        own = folder / OWN_PROPERTIES
        text += own.read_text("utf-8") if own.exists() else ""
        write_private(properties, text)
        write_private(folder / "log4j2.properties", _LOG4J)
        if not (data / "meta.properties").exists():
            _format(properties)

    return Part(
        name="kafka",
        argv=java(heap=HEAP, options=options, main=["kafka.Kafka", str(properties)]),
        env={},
        folder=folder,
        prepare=prepare,
        ports=tuple(state.ports("kafka").values()),
        probe=lambda: check_metadata_and_coordinators(LOOPBACK, state.port("kafka", "broker")),
        on_ready=lambda: check_coordinators_loaded(LOOPBACK, state.port("kafka", "broker")),
        stop_timeout_s=30.0,
    )


def _format(properties: Path) -> None:
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", class_path("kafka")]
    main = ["kafka.tools.StorageTool", "format", "--standalone", "--ignore-formatted", "-t", cluster_id]
    command = java(heap="128m", options=options, main=[*main, "-c", str(properties)])
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise StackError(f"Kafka's data folder could not be formatted: {(done.stderr or done.stdout).strip()[-300:]}")


def create_scram_user(state: StackState) -> None:
    """Make the user of the secure listener, over the plain one; the second call sets the same password again."""
    from confluent_kafka.admin import (  # type: ignore[attr-defined]
        AdminClient,
        ScramCredentialInfo,
        ScramMechanism,
        UserScramCredentialUpsertion,
    )

    admin = AdminClient({"bootstrap.servers": bootstrap(state)})
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    user = UserScramCredentialUpsertion(SCRAM_USER, info, state.secret("kafka").encode())
    futures = admin.alter_user_scram_credentials([user])
    for future in futures.values():
        future.result()
