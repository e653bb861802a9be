"""Kill switch: what was decided, by whom, how fast, and what stands now."""

from dashboards.grafana.board import Board, Row
from dashboards.grafana.panels import STATE_COLORS, Asked, series, table

_ROLLOUT_LINK = {"rollout": "/d/cordon-rollout?var-rollout=${__data.fields.rollout}&${__url_time_range}"}

KILLSWITCH = Board(
    uid="cordon-killswitch",
    title="Cordon / Kill switch",
    about="Every decision and who made it, what is stopped now, and how long it took from the first crash.",
    variables=("product",),
    annotations=("rings",),
    rows=(
        Row(
            "Stopped now",
            (table("Stopped now", Asked("killswitch/standing"), links=_ROLLOUT_LINK, widths={"sentence": 560}),),
        ),
        Row(
            "Decisions",
            (
                series("Decisions", Asked("killswitch/by_decision"), bars=True, colors=STATE_COLORS, width=12),
                table(
                    "First crash to kill",
                    Asked("killswitch/crash_to_kill"),
                    units={"seconds_to_kill": "s"},
                    width=12,
                    height=8,
                    about="By event time, for kills by the detector.",
                ),
                table(
                    "Every event",
                    Asked("killswitch/decisions"),
                    links=_ROLLOUT_LINK,
                    widths={"sentence": 560},
                    height=14,
                    about="`held_for` is the event time of the verdict; signatures are checked by `cordon verify`.",
                ),
            ),
        ),
    ),
    span="now-7d",
)
