"""Pipeline health: does Cordon itself see, keep up, and lose nothing."""

from dashboards.grafana.board import Board, Row
from dashboards.grafana.panels import ORANGE, RED, Asked, number, series

PIPELINE = Board(
    uid="cordon-pipeline",
    title="Cordon / Pipeline health",
    about="Does Cordon see, does it keep up, does it lose anything: lag, freshness, outcomes, dead letters.",
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
    ),
    span="now-3h",
)
