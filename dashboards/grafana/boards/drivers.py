"""Drivers and signatures: versions side by side, what crashes in them, and with what they do not get along."""

from dashboards.grafana.board import Board, Row
from dashboards.grafana.panels import Asked, series, table

DRIVERS = Board(
    uid="cordon-drivers",
    title="Cordon / Drivers and signatures",
    about="Versions side by side and at the same age, their signatures, and on which OS builds they crash.",
    variables=("product", "version", "ring", "os_build", "tenant"),
    annotations=("rings", "decisions"),
    rows=(
        Row(
            "Versions",
            (
                table(
                    "Versions",
                    Asked("drivers/versions"),
                    heat=("crashed",),
                    about="A version that kills at once is never reported as installed: look at exposure then.",
                ),
                series("Crashed devices by version", Asked("drivers/over_time"), width=24),
                table(
                    "The same age",
                    Asked("drivers/same_age"),
                    heat=("first_hour", "first_6_hours", "first_day"),
                    about="Devices, from the beginning of each rollout: a young one is compared with its like.",
                ),
            ),
        ),
        Row(
            "Signatures",
            (
                table("Signatures", Asked("drivers/signatures"), heat=("devices",)),
                series("Loudest signatures", Asked("drivers/signatures_over_time"), width=24),
            ),
        ),
        Row(
            "Compatibility",
            (
                table(
                    "Version and OS build",
                    Asked("drivers/matrix"),
                    heat=("crashed", "crashed_per_thousand"),
                    height=12,
                    about="`cordon compat` says which pairs crash more than either alone, with evidence.",
                ),
            ),
        ),
    ),
    span="now-24h",
)
