"""The properties of a local broker: KRaft, controller and broker in one process, small, on loopback.

What is set here is for tests and trying out: one machine, little memory, quick elections. What a test may rely on:
log-append time, no topic made by itself, no waiting before a consumer group's first assignment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy.kafka.security import Security

PLAINTEXT = "PLAINTEXT"
CONTROLLER = "CONTROLLER"
# A record holds at most 1 MiB of value; the rest is room for key, headers and the batch round it.
MESSAGE_BYTES_MAX = (1 << 20) + 65536

_SMALL: dict[str, str] = {
    "auto.create.topics.enable": "false",
    "log.message.timestamp.type": "LogAppendTime",
    "message.max.bytes": str(MESSAGE_BYTES_MAX),
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    # An index is mapped at its full size: many small topics would take gigabytes of address space.
    "log.index.size.max.bytes": str(1 << 20),
    # Compaction shows within a test; the default buffer of 128 MB would not fit into the heap.
    "log.cleaner.dedupe.buffer.size": str(4 << 20),
    "log.cleaner.io.buffer.size": str(1 << 18),
    "log.cleaner.backoff.ms": "500",
    "log.retention.check.interval.ms": "1000",
    "log.initial.task.delay.ms": "1000",
    "file.delete.delay.ms": "1000",
    "num.network.threads": "1",
    "num.io.threads": "3",
    "background.threads": "2",
    "num.recovery.threads.per.data.dir": "1",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.election.backoff.max.ms": "300",
    "controller.quorum.fetch.timeout.ms": "1500",
    # How soon a killed broker's partitions get another leader, and how soon it may register again.
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "replica.lag.time.max.ms": "3000",
    "replica.fetch.wait.max.ms": "200",
    "controlled.shutdown.enable": "true",
}


@dataclass(frozen=True, slots=True)
class NodePorts:
    """The loopback ports of one broker: a name of a listener to its port, the controller's among them."""

    node: int
    ports: Mapping[str, int] = field(default_factory=dict)


def render(
    here: NodePorts,
    nodes: Sequence[NodePorts],
    data: str,
    *,
    security: Security | None = None,
    extra: Mapping[str, str] | None = None,
) -> str:
    """Return the properties file of one broker in a cluster of `nodes`.

    Args:
        here: the broker the file is for.
        nodes: all of them, itself included.
        data: its log folder.
        security: certificates and users, where the broker has more listeners than the plaintext one.
        extra: properties that win over these.
    """
    brokers = [name for name in here.ports if name != CONTROLLER]
    protocols = {CONTROLLER: "PLAINTEXT", PLAINTEXT: "PLAINTEXT"} | (security.protocols() if security else {})
    replicas = min(3, len(nodes))
    values = {
        "process.roles": "broker,controller",
        "node.id": str(here.node),
        "controller.quorum.voters": ",".join(f"{one.node}@127.0.0.1:{one.ports[CONTROLLER]}" for one in nodes),
        "controller.listener.names": CONTROLLER,
        "inter.broker.listener.name": PLAINTEXT,
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in here.ports.items()),
        "advertised.listeners": ",".join(f"{name}://127.0.0.1:{here.ports[name]}" for name in brokers),
        "listener.security.protocol.map": ",".join(f"{name}:{protocols[name]}" for name in here.ports),
        "log.dirs": data,
        "default.replication.factor": str(replicas),
        "offsets.topic.replication.factor": str(replicas),
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": str(max(1, replicas - 1)),
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": str(max(1, replicas - 1)),
        **_SMALL,
        **(security.properties() if security else {}),
        **(extra or {}),
    }
    return "".join(f"{name}={_escaped(value)}\n" for name, value in values.items())


def _escaped(value: str) -> str:
    # A properties file reads a backslash as an escape and a line's end as the value's end.
    return value.replace("\\", "\\\\").replace("\n", "\\n")
