"""Fixtures of the kill switch's tests."""

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def cloudevents_schema(shared_dir: Path) -> dict[str, Any]:
    """Return the CloudEvents JSON schema."""
    schema: dict[str, Any] = json.loads((shared_dir / "schemas" / "cloudevents.schema.json").read_text())
    return schema
