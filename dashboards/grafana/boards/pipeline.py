"""Pipeline health: does Cordon itself see, keep up, and lose nothing."""

from dashboards.grafana.board import Board, Row
from dashboards.grafana.panels import ORANGE, RED, Asked, number, series

PIPELINE = Board(
    uid="cordon-pipeline",
    title="Cordon / Pipeline health",
    about="Does Cordon see, does it keep up, does it lose anything: lag, freshness, outcomes, leases, deliveries.",
    variables=(),
    annotations=(),
    rows=(
        Row(
            "Sight",
            (
                number(
                    "Picture's age",
                    Asked("pipeline/freshness"),
                    unit="s",
                    steps=((10, ORANGE), (60, RED)),
                    about="Above `blind_seconds` Cordon says that it is blind, and leases run out.",
                ),
                number("Crashes waiting for activity", Asked("pipeline/crashes_pending"), steps=((1000, ORANGE),)),
                number("Devices known", Asked("pipeline/devices")),
                number("Rollouts under watch", Asked("pipeline/rollouts")),
                number("Open streams", Asked("pipeline/subscribers")),
                number(
                    "Since the last drill that passed",
                    Asked("pipeline/drill_age"),
                    unit="s",
                    steps=((100_000, RED),),
                    about="The only proof that the switch works.",
                ),
                series("Unread records", Asked("pipeline/backlog", "{{stage}}")),
                series("Time of a step, 99th percentile", Asked("pipeline/step_p99", "{{stage}}"), unit="s"),
            ),
        ),
        Row(
            "Reports",
            (
                series("Reports at the gateway", Asked("pipeline/reports", "{{outcome}}"), unit="reqps"),
                series("Reports in grouping", Asked("pipeline/grouped", "{{outcome}}"), unit="reqps"),
                series(
                    "Time of a post and of an append, 99th percentile",
                    Asked("pipeline/post_p99", "post"),
                    Asked("pipeline/append_p99", "append"),
                    unit="s",
                ),
                series("Refused requests", Asked("pipeline/refused", "{{reason}}"), unit="reqps"),
                series("Dead letters", Asked("pipeline/dead_letters", "{{reason}}")),
                series("Verdicts", Asked("pipeline/verdicts", "{{decision}}"), unit="cps"),
            ),
        ),
        Row(
            "Store and log",
            (
                series("Rows into the store", Asked("pipeline/store_rows", "{{table}}"), unit="rps"),
                number("Refused inserts", Asked("pipeline/store_failures"), steps=((1, RED),), width=6),
                number("Log on disk", Asked("pipeline/log_bytes"), unit="bytes", width=6),
            ),
        ),
        Row(
            "Leases and drills",
            (
                series(
                    "Leases granted",
                    Asked("pipeline/leases_issued", "granted"),
                    unit="cps",
                    about="Granted only while Cordon sees; a rollout without one pauses by itself.",
                ),
                series("Leases withheld", Asked("pipeline/leases_withheld", "{{reason}}")),
                number("Releases that wait", Asked("pipeline/approvals"), steps=((1, ORANGE),), width=6),
                number("Open alerts on patterns", Asked("pipeline/alerts_open"), steps=((1, ORANGE),), width=6),
                series("Drills", Asked("pipeline/drills", "{{result}}"), width=6, height=4),
                number("First crash to kill in the last drill", Asked("pipeline/drill_seconds"), unit="s", width=6),
            ),
        ),
        Row(
            "Webhooks",
            (
                series("Posts to webhooks", Asked("pipeline/webhook_attempts", "{{outcome}}"), unit="cps"),
                number("Undelivered", Asked("pipeline/webhook_queue"), steps=((100, ORANGE),), width=3),
                number(
                    "Oldest of them",
                    Asked("pipeline/webhook_oldest"),
                    unit="s",
                    steps=((60, ORANGE), (600, RED)),
                    width=3,
                ),
                number("Given up", Asked("pipeline/webhook_dead"), steps=((1, RED),), width=3),
                number("Webhooks not in use", Asked("pipeline/webhook_disabled"), steps=((1, ORANGE),), width=3),
            ),
        ),
        Row(
            "Pagers",
            (
                series("Attempts to page", Asked("pipeline/pager_sends", "{{answered}}"), unit="cps"),
                series("Time of an attempt, 99th percentile", Asked("pipeline/pager_p99", "attempt"), unit="s"),
                number("Open incidents", Asked("pipeline/pager_incidents"), steps=((1, ORANGE),), width=4),
                number("Not taken yet", Asked("pipeline/pager_waiting"), steps=((1, ORANGE),), width=4),
                number("Routes that fail", Asked("pipeline/pager_breakers"), steps=((1, RED),), width=4),
                number("Pages given up", Asked("pipeline/pager_undelivered"), steps=((1, RED),), width=4),
                series(
                    "Heartbeats to the dead-man's switch",
                    Asked("pipeline/deadman", "{{result}}"),
                    unit="cps",
                    width=8,
                    height=4,
                    about="Sent only while Cordon sees; whoever misses them is to page whoever runs Cordon.",
                ),
            ),
        ),
    ),
    span="now-3h",
)
