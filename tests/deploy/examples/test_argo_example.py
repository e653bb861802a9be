"""The manifests for Argo Rollouts: they fit its CRDs, and its own web provider measures a running Cordon with them."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from detectors.verdict import DecisionWord
from signals.killswitch.lease import LeaseTerms
from support.go_modules import ARGO, built, module_folder, violations
from support.leases import declare_rings, grant
from support.repository_files import REPOSITORY
from support.streams import READER, StreamRig, eventually, streaming
from support.switches import ROLLOUT, verdict

FOLDER = REPOSITORY / "deploy" / "examples" / "argo"
PROGRAM = REPOSITORY / "tests" / "support" / "argo"
CRDS = {"AnalysisTemplate": "analysis-template-crd.yaml", "Rollout": "rollout-crd.yaml"}


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


TEMPLATES = manifests("analysis-templates.yaml")
EVERYTHING = [*TEMPLATES, *manifests("rollout.yaml")]


def filled(template: dict[str, Any], arguments: dict[str, str]) -> str:
    """Return a template as JSON, its arguments filled in as Argo does; one that it does not declare is an error."""
    assert {one["name"] for one in template["spec"]["args"]} == set(arguments)
    return re.sub(r"\{\{ *args\.([\w-]+) *\}\}", lambda found: arguments[found.group(1)], json.dumps(template))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program that measures with Argo's own provider."""
    return built(PROGRAM, tmp_path_factory.mktemp("argo") / "measure")


@pytest.fixture
def rig() -> Iterator[StreamRig]:
    with streaming(terms=LeaseTerms()) as running:
        declare_rings(running)
        yield running


@pytest.mark.parametrize("manifest", EVERYTHING, ids=lambda one: str(one["metadata"]["name"]))
def test_a_manifest_fits_the_crd(manifest: dict[str, Any]) -> None:
    folder = module_folder(ARGO) / "manifests" / "crds"
    crd = folder / CRDS[manifest["kind"]]
    assert violations(crd, manifest) == []
    # The check itself can fail.
    wrong = json.loads(json.dumps(manifest).replace('"name"', '"nmae"'))
    assert violations(crd, wrong) != []


def test_the_rollout_asks_before_each_step_that_widens_it_with_arguments_that_the_templates_take() -> None:
    canary = EVERYTHING[-1]["spec"]["strategy"]["canary"]
    analyses = [canary["analysis"], *(step["analysis"] for step in canary["steps"] if "analysis" in step)]
    by_name = {one["metadata"]["name"]: one for one in TEMPLATES}
    for analysis in analyses:
        given = {one["name"] for one in analysis["args"]}
        for used in analysis["templates"]:
            needed = {one["name"] for one in by_name[used["templateName"]]["spec"]["args"] if "valueFrom" not in one}
            assert needed == given
    widening = [place for place, step in enumerate(canary["steps"]) if "setWeight" in step]
    assert widening
    assert all("analysis" in canary["steps"][place - 1] for place in widening)
    assert "analysis" in canary["steps"][-1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: str(one["metadata"]["name"]))
def test_argos_own_provider_says_success_pause_and_failure(
    rig: StreamRig, program: Path, template: dict[str, Any]
) -> None:
    """The first build takes a minute of processor time; later ones come out of Go's cache."""

    def measured(url: str = rig.url, ring: str = "canary", token: str = READER, rollout: str = ROLLOUT) -> str:
        text = filled(template, {"cordon": url, "rollout": rollout, "ring": ring, "token": token})
        done = subprocess.run([program], input=text, capture_output=True, text=True, timeout=60, check=True)
        name, phase, _ = done.stdout.split(" ", 2)
        assert name == "proceed"
        return phase

    assert measured() == "Inconclusive"
    lease = grant(rig)
    assert measured() == "Successful"
    # None of these is an answer: Argo asks again and the Rollout stays where it is.
    assert measured(ring="canry") == "Error"
    assert measured(rollout="r-typo") == "Error"
    assert measured(token="nobody") == "Error"
    assert measured(url="http://127.0.0.1:9") == "Error"
    rig.clock.drive_to(lease.expires_ms)
    assert measured() == "Inconclusive"
    rig.say(verdict(DecisionWord.KILL, at_ms=rig.clock.now_ms()))
    eventually(lambda: rig.service.views.switch(ROLLOUT) is not None)
    assert measured() == "Failed"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: str(one["metadata"]["name"]))
def test_one_hold_pauses_one_kill_fails_and_no_error_rolls_back(template: dict[str, Any]) -> None:
    (metric,) = template["spec"]["metrics"]
    assert (metric["successCondition"], metric["failureCondition"]) == ("result.proceed", "result.killed")
    assert (metric["inconclusiveLimit"], metric["failureLimit"]) == (0, 0)
    assert metric["consecutiveErrorLimit"] > 100_000
