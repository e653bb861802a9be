"""The manifest for Flagger: it fits the CRD, and each hook asks the path of the right polarity."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import yaml

from signals.killswitch.lease import LeaseTerms
from support.go_modules import FLAGGER, module_folder, violations
from support.leases import declare_rings, grant
from support.repository_files import REPOSITORY
from support.streams import READER, StreamRig, streaming

CANARY: dict[str, Any] = yaml.safe_load(
    (REPOSITORY / "deploy" / "examples" / "flagger" / "canary.yaml").read_text(encoding="utf-8")
)
HOOKS = {hook["type"]: hook for hook in CANARY["spec"]["analysis"]["webhooks"]}
GO = ("confirm-rollout", "confirm-traffic-increase", "confirm-promotion")


@pytest.fixture
def rig() -> Iterator[StreamRig]:
    with streaming(terms=LeaseTerms()) as running:
        declare_rings(running)
        yield running


def test_it_fits_the_crd() -> None:
    crd = module_folder(FLAGGER) / "artifacts" / "flagger" / "crd.yaml"
    assert violations(crd, CANARY) == []
    assert violations(crd, json.loads(json.dumps(CANARY).replace("confirm-rollout", "confirm-rolout"))) != []


def test_every_hook_that_lets_go_asks_the_gate_and_only_rollback_asks_for_one() -> None:
    assert set(HOOKS) == {*GO, "rollback"}
    assert all(HOOKS[kind]["url"].endswith("/v1/flagger/gate") for kind in GO)
    assert HOOKS["rollback"]["url"].endswith("/v1/flagger/rollback")
    assert len({json.dumps(hook["metadata"]) for hook in HOOKS.values()}) == 1


def test_its_hooks_are_answered_by_a_running_cordon(rig: StreamRig) -> None:
    def status(kind: str) -> int:
        url = HOOKS[kind]["url"].replace("VIEWER_TOKEN", READER).replace("cordon-streams:8401", f"127.0.0.1:{rig.port}")
        call = {"name": "update-service", "namespace": "fleet", "phase": "Progressing", "checksum": "7d9f"}
        return httpx2.post(url, json=call | {"metadata": HOOKS[kind]["metadata"]}).status_code

    assert [status(kind) for kind in (*GO, "rollback")] == [409, 409, 409, 409]
    grant(rig)
    assert [status(kind) for kind in (*GO, "rollback")] == [200, 200, 200, 409]
