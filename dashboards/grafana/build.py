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
from dashboards.grafana.boards.rollout import ROLLOUT

BOARDS: tuple[Board, ...] = (FLEET, ROLLOUT, DRIVERS, KILLSWITCH, PIPELINE)


def written(board: Board) -> str:
    """Return the board's JSON."""
    made: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    for name, annotation in zip(board.annotations, made.get("annotations", {}).get("list", []), strict=True):
        annotation["target"] = annotation_target(name)
    return json.dumps(made, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def write(folder: Path) -> list[Path]:
    """Write all boards; return the files that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for board in BOARDS:
        file, text = folder / f"{board.uid}.json", written(board)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            changed.append(file)
    return changed


def folder() -> Path:
    """Return where the committed JSON lies."""
    return Path(str(resources.files("dashboards.grafana") / "json"))
