"""Kill switch and pages: what was decided, by whom, how fast, what stands now, and who was told of it."""

from dashboards.grafana.board import Board, Row
from dashboards.grafana.panels import GREEN, ORANGE, RED, STATE_COLORS, Asked, series, table

_ROLLOUT_LINK = {"rollout": "/d/cordon-rollout?var-rollout=${__data.fields.rollout}&${__url_time_range}"}

KILLSWITCH = Board(
    uid="cordon-killswitch",
    title="Cordon / Kill switch and pages",
    about="Every decision and who made it, what is stopped now, how long it took, and every page with its answer.",
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
        Row(
            "Pages",
            (
                series(
                    "Attempts to tell somebody",
                    Asked("killswitch/pages_over_time"),
                    bars=True,
                    colors={"delivered": GREEN, "retry": ORANGE, "refused": RED},
                    about="Nothing here means that nobody was told, or that no routes file is set.",
                ),
                table(
                    "Decision to page",
                    Asked("killswitch/decision_to_page"),
                    units={"seconds_to_page": "s"},
                    links=_ROLLOUT_LINK,
                    width=12,
                    height=8,
                ),
                table(
                    "Every delivery",
                    Asked("killswitch/pages"),
                    units={"seconds": "s"},
                    links=_ROLLOUT_LINK,
                    widths={"headline": 420, "answer": 240},
                    height=12,
                    about="`retry` is tried again; `refused` goes to the fallback route and waits for `cordon pagers`.",
                ),
            ),
        ),
    ),
    span="now-7d",
)
