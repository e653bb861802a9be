"""Fleet: is anything wrong out there, and where."""

from dashboards.grafana.board import Board, Row
from dashboards.grafana.panels import ORANGE, RED, Asked, number, series, table

ROLLOUT_LINK = "/d/cordon-rollout?var-rollout=${__data.fields.rollout}&${__url_time_range}"

FLEET = Board(
    uid="cordon-fleet",
    title="Cordon / Fleet",
    about="Is anything wrong out there, and where: crashes, boot loops and silence against what is normal.",
    variables=("product", "ring", "os_build", "tenant"),
    annotations=("rings", "decisions"),
    rows=(
        Row(
            "Now",
            (
                number(
                    "Rollouts stopped",
                    Asked("fleet/stopped"),
                    steps=((1, RED),),
                    about="Held or killed; see Kill switch.",
                ),
                number("Crashed devices", Asked("fleet/crashed_devices"), steps=((1, ORANGE),)),
                number(
                    "Picture's age",
                    Asked("pipeline/freshness"),
                    unit="s",
                    steps=((10, ORANGE), (60, RED)),
                    about="Above ten seconds Cordon calls itself blind.",
                ),
                number("Devices known", Asked("pipeline/devices"), width=6),
                number("Rollouts under watch", Asked("pipeline/rollouts"), width=6),
            ),
        ),
        Row(
            "Rollouts",
            (
                table(
                    "Rollouts",
                    Asked("fleet/rollouts"),
                    links={"rollout": ROLLOUT_LINK},
                    units={"evidence": "none", "needed": "none"},
                    widths={"sentence": 520},
                    about="Evidence and what a kill needs are powers of ten.",
                ),
            ),
        ),
        Row(
            "Crashes",
            (
                series(
                    "Crash rate by ring",
                    Asked("fleet/crash_rate"),
                    about="Check-ins as the denominator come from the same minutes as the crashes.",
                ),
                series(
                    "Boot loops",
                    Asked("fleet/boot_loops"),
                    colors={"boot_loops": RED, "normal": "#8C8C8C"},
                    dashed=("normal",),
                ),
                series("Crashed devices by OS build", Asked("fleet/by_os_build"), bars=True),
                table(
                    "Modules",
                    Asked("fleet/by_module"),
                    width=12,
                    height=8,
                    about="The module that the signature rules blame, which is not always the one that crashed.",
                ),
            ),
        ),
        Row(
            "Silence",
            (
                series(
                    "Check-ins by ring, of normal",
                    Asked("fleet/check_ins"),
                    unit="percentunit",
                    about="A machine that boot-loops cannot report: silence is most of what it has to say.",
                ),
                series("Exposed devices fallen silent", Asked("fleet/silent")),
            ),
        ),
        Row(
            "Patterns that belong to no rollout",
            (
                table(
                    "Alerts",
                    Asked("fleet/alerts"),
                    widths={"sentence": 560},
                    about="Judged hour by hour against the usual; `cordon patterns` says more.",
                ),
            ),
        ),
    ),
)
