"""Removes the dead process whose place this one takes from its consumer group.

A killed worker is a member of its group until its session runs out, and the group deals nothing anew before. A worker
that is started again under the same name says at once that its predecessor is gone: its shares are owned again after a
second or two rather than after the session.

The invariant: the name alone is gone by, so where two living workers bear one name, the later one takes the earlier
one's membership once, at its start; the earlier joins again and nothing is lost but the time of a rebalance.
"""

import logging

from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove
from kafka.errors import KafkaError, NoError

from ingest.log.kafka.connection import Connection

logger = logging.getLogger(__name__)


def remove_predecessors(connection: Connection, group: str, client: str) -> int:
    """Remove every member of `group` that joined under the client id `client`; return how many there were.

    Call it before joining, and never in an event loop: it blocks, for some requests' time. A Kafka that is away, or
    that does not allow it, costs nothing but the wait for the session: that is logged and not raised.
    """
    try:
        admin = KafkaAdminClient(
            **connection.for_kafka_python(),
            client_id=client,
            request_timeout_ms=connection.timeout_ms,
            bootstrap_timeout_ms=connection.timeout_ms,
        )
    except KafkaError as error:
        logger.info("%s: no word of a predecessor of %s: %r", group, client, error)
        return 0
    try:
        members = admin.describe_groups([group])[group]["members"]
        dead = [one["member_id"] for one in members if one["client_id"] == client]
        # Answers come by member id (kafka-python 3.0; its documentation says otherwise).
        answers = admin.remove_group_members(group, [MemberToRemove(one) for one in dead]) if dead else {}
    except (KafkaError, KeyError) as error:
        logger.info("%s: a predecessor of %s is a member until its session ends: %r", group, client, error)
        return 0
    finally:
        admin.close()
    removed = [member for member in dead if answers.get(member) is NoError]
    if removed:
        logger.info("%s: took the place of %s", group, ", ".join(removed))
    return len(removed)
