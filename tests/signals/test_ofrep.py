"""A rollout's switch as an OpenFeature flag, read with OpenFeature's own SDK and provider."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode

from detectors.drill import PRODUCT, VENDOR
from detectors.scope import Scope
from detectors.verdict import DecisionWord
from ingest.events import encoder
from ingest.log.interface import Entry
from signals.events import SwitchState
from signals.killswitch.lease import LeaseTerms
from support.leases import declare_rings, grant, part, stand
from support.openapi import check_answer
from support.streams import READER, REPORTER, StreamRig, eventually, streaming
from support.switches import ROLLOUT, START_MS, verdict

OTHER = "r-fedcba9876543210"
BULK, ONE = "/ofrep/v1/evaluate/flags", f"/ofrep/v1/evaluate/flags/{ROLLOUT}"


@pytest.fixture
def rig() -> Iterator[StreamRig]:
    with streaming(terms=LeaseTerms()) as running:
        declare_rings(running)
        yield running


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> dict[str, Any]:
    """Return the protocol's own OpenAPI document."""
    text = (shared_dir / "schemas" / "ofrep.openapi.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    # "No value at all" is one of its flags and is written as a schema that everything fits, so that the `oneOf` of
    # flags refuses every flag that has a value. What is meant is that there is none.
    document["components"]["schemas"]["codeDefaultFlag"]["not"] = {"required": ["value"]}
    # A number that has no fraction is an integer and a float alike; ours is a boolean.
    document["components"]["schemas"]["floatFlag"]["not"] = {"properties": {"value": {"type": "integer"}}}
    return document


def fits(published: dict[str, Any], schema: str, said: Any) -> bool:
    whole = {"$ref": f"#/components/schemas/{schema}", "components": published["components"]}
    return Draft202012Validator(whole).is_valid(said)


def sdk(url: str, token: str) -> OpenFeatureClient:
    """Return OpenFeature's client on its own provider."""
    provider = OFREPProvider(url, headers_factory=lambda: {"authorization": f"Bearer {token}"}, timeout=10)
    api.set_provider(provider, "rollouts")
    return api.get_client("rollouts")


@pytest.fixture(autouse=True)
def _providers_end() -> Iterator[None]:
    yield
    api.shutdown()


def test_the_sdk_reads_whether_a_rollout_may_proceed(rig: StreamRig) -> None:
    client = sdk(rig.url, READER)
    assert client.get_boolean_value(ROLLOUT, False) is False
    lease = grant(rig)
    found = client.get_boolean_details(ROLLOUT, False)
    assert (found.value, found.variant, found.error_code) == (True, "proceed", None)
    assert found.flag_metadata["until_ms"] == lease.expires_ms
    assert found.flag_metadata["reason"] == "lease_valid"
    rig.clock.drive_to(lease.expires_ms)
    expired = client.get_boolean_details(ROLLOUT, True)
    assert (expired.value, expired.variant) == (False, "hold")


def test_the_evaluation_context_names_the_part(rig: StreamRig) -> None:
    grant(rig, number=1)
    stand(rig, part(Scope(ring="early"), SwitchState.KILLED))
    client = sdk(rig.url, READER)

    def asked(**attributes: str) -> tuple[Any, Any]:
        context = EvaluationContext("deploy-7", {"plan": "gold", **attributes})
        found = client.get_boolean_details(ROLLOUT, False, context)
        return found.value, found.variant

    assert asked(ring="canary") == (True, "proceed")
    assert asked(ring="early") == (False, "kill")
    assert asked() == (False, "kill")


@pytest.mark.parametrize("default", [False, True])
def test_an_error_gives_the_callers_default_which_is_why_it_has_to_be_false(rig: StreamRig, default: bool) -> None:
    grant(rig)
    client, wrong = sdk(rig.url, READER), EvaluationContext(None, {"ring": "canry"})
    unknown = client.get_boolean_details("r-typo", default)
    assert (unknown.value, unknown.error_code) == (default, ErrorCode.FLAG_NOT_FOUND)
    typo = client.get_boolean_details(ROLLOUT, default, wrong)
    assert (typo.value, typo.error_code) == (default, ErrorCode.INVALID_CONTEXT)
    assert "canary, early" in str(typo.error_message)
    nobody = sdk(rig.url, "nobody").get_boolean_details(ROLLOUT, default)
    assert (nobody.value, nobody.error_code) == (default, ErrorCode.GENERAL)
    dead = sdk("http://127.0.0.1:9", READER).get_boolean_details(ROLLOUT, default)
    assert (dead.value, dead.error_code) == (default, ErrorCode.GENERAL)


def test_answers_fit_the_protocols_own_document(rig: StreamRig, published: dict[str, Any]) -> None:
    grant(rig)
    context = {"context": {"targetingKey": "deploy-7"}}
    wrong = {"context": {"targetingKey": "deploy-7", "ring": "canry"}}
    with rig.http(READER) as http:
        ours = http.get("/v1/openapi.json").json()

        def asked(path: str, body: Any, status: int) -> Any:
            answer = http.post(path, json=body) if not isinstance(body, bytes) else http.post(path, content=body)
            assert answer.status_code == status, answer.text
            check_answer(ours, "POST", BULK if path == BULK else f"{BULK}/{{key}}", answer)
            return answer.json()

        assert fits(published, "serverEvaluationSuccess", asked(ONE, context, 200))
        assert fits(published, "evaluationFailure", asked(ONE, wrong, 400))
        assert fits(published, "evaluationFailure", asked(ONE, b"{", 400))
        assert fits(published, "evaluationFailure", asked(ONE, {"context": {"ring": 7}}, 400))
        assert fits(published, "flagNotFound", asked(f"{BULK}/r-typo", context, 404))
        assert fits(published, "bulkEvaluationSuccess", asked(BULK, context, 200))
        partly = asked(BULK, wrong, 200)
        assert fits(published, "bulkEvaluationSuccess", partly)
        assert partly["flags"][0]["errorCode"] == "INVALID_CONTEXT"
        assert fits(published, "bulkEvaluationFailure", asked(BULK, b"[]", 400))
        # The check itself can fail: a flag without a reason, and one whose value is no boolean and no text, do not fit.
        flag = asked(ONE, context, 200)
        assert not fits(published, "serverEvaluationSuccess", {**flag, "reason": "MAYBE"})
        assert not fits(published, "serverEvaluationSuccess", {**flag, "value": None})


def test_a_bulk_answer_is_not_sent_again_until_a_flag_changes(rig: StreamRig) -> None:
    declare_rings(rig, rollout=OTHER)
    grant(rig)
    with rig.http(READER) as http:
        first = http.post(BULK, json={"context": {}})
        assert {flag["key"]: flag["value"] for flag in first.json()["flags"]} == {ROLLOUT: True, OTHER: False}
        tag = {"if-none-match": first.headers["etag"]}
        rig.clock.drive_to(START_MS + 5_000)
        same = http.post(BULK, json={"context": {}}, headers=tag)
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
        grant(rig, OTHER)
        changed = http.post(BULK, json={"context": {}}, headers=tag)
        assert (changed.status_code, changed.headers["etag"] != first.headers["etag"]) == (200, True)


def test_drills_are_no_flags_among_others(rig: StreamRig) -> None:
    drill = verdict(DecisionWord.KILL, rollout="r-drill")
    drill.vendor, drill.product = VENDOR, PRODUCT
    rig.log.append([Entry(*rig.source("verdicts"), b"r-drill", encoder.encode(drill))])
    eventually(lambda: rig.service.views.knows("r-drill"))
    with rig.http(READER) as http:
        flags = http.post(BULK, json={"context": {}}).json()["flags"]
    assert [flag["key"] for flag in flags] == [ROLLOUT]


@pytest.mark.parametrize(("token", "status"), [("nobody", 401), (REPORTER, 403)])
def test_flags_need_a_token_that_may_read(rig: StreamRig, token: str, status: int) -> None:
    with rig.http(token) as http:
        assert [http.post(path, json={"context": {}}).status_code for path in (ONE, BULK)] == [status, status]


def test_a_body_that_is_too_large_is_refused(rig: StreamRig) -> None:
    with rig.http(READER) as http:
        assert http.post(ONE, content=b" " * 70_000).status_code == 413
