"""All boards as the JSON that Grafana imports; written to `json/`, committed, and tested to be fresh.

Needs the foundation SDK, which is among the development dependencies: whoever runs Cordon uses the JSON.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.grafana.board import Board, annotation_target
from dashboards.grafana.boards.drivers import DRIVERS
from dashboards.grafana.boards.fleet import FLEET
from dashboards.grafana.boards.killswitch import KILLSWITCH
from dashboards.grafana.boards.pipeline import PIPELINE
from dashboards.grafana.boards.recovery import RECOVERY
from dashboards.grafana.boards.rollout import ROLLOUT
from dashboards.grafana.provision.resources import alerting_file

BOARDS: tuple[Board, ...] = (FLEET, ROLLOUT, DRIVERS, KILLSWITCH, RECOVERY, PIPELINE)


def written(board: Board) -> str:
    """Return the board's JSON."""
    made: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    for name, annotation in zip(board.annotations, made.get("annotations", {}).get("list", []), strict=True):
        annotation["target"] = annotation_target(name)
    return json.dumps(made, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _written_to(file: Path, text: str) -> list[Path]:
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return []
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return [file]


def write(folder: Path) -> list[Path]:
    """Write all boards, and beside them the alert rules as a file; return the files that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed: list[Path] = []
    for board in BOARDS:
        changed += _written_to(folder / f"{board.uid}.json", written(board))
    alerting = folder.parent / "provisioning" / "alerting" / "cordon.json"
    return changed + _written_to(alerting, json.dumps(alerting_file(), indent=2, sort_keys=True) + "\n")


def folder() -> Path:
    """Return where the committed JSON lies."""
    return Path(str(resources.files("dashboards.grafana") / "json"))
