"""The decoder of every wire type that has golden bytes in `tests/golden/v1` and a schema number, by the file's name."""

from typing import Any

from detectors.alerts.wire import alert_decoder
from detectors.verdict import verdict_decoder
from ingest.activity import activity_decoder
from ingest.claims import claim_decoder
from ingest.deadletter import deadletter_decoder
from ingest.events import device_record_decoder, report_decoder
from ingest.installation import fact_decoder
from ingest.progress import progress_decoder
from ingest.rollouts import rollout_decoder
from ingest.windows import step_decoder
from signals.delivery.webhooks import words as webhooks
from signals.events import audit_decoder, command_decoder, place_decoder, record_decoder
from signals.pagers import records as pagers

# Refused by number: what is counted or judged by. Named after the golden files.
BOUNDED: dict[str, Any] = {
    "activity_batch": activity_decoder,
    "batch": device_record_decoder,
    "tick": device_record_decoder,
    "rollout_notice": device_record_decoder,
    "rollout": rollout_decoder,
    "step": step_decoder,
}
# Read whatever its number: what only names or tells. A report's number is judged by the gateway, with an outcome.
TOLERANT: dict[str, Any] = {
    **dict.fromkeys(("offered", "installed", "check_in", "bsod", "boot_loop"), report_decoder),
    "claim": claim_decoder,
    "owner_word": progress_decoder,
    "fact": fact_decoder,
    "dead_letter": deadletter_decoder,
    "command": command_decoder,
    "command_of_part": command_decoder,
    "switch_place": place_decoder,
    "switch_place_pending": place_decoder,
    "audit_entry": audit_decoder,
    "subscription": webhooks.subscription_decoder,
    "delivery_place": webhooks.place_decoder,
    "dead_delivery": webhooks.dead_decoder,
    "page_place": pagers.place_decoder,
    "page_attempt": pagers.attempt_decoder,
    "page_order": pagers.order_decoder,
    "switch_record": record_decoder,
}
# Those of the detectors have a number of their own.
DETECTORS: dict[str, Any] = {"verdict": verdict_decoder, "alert": alert_decoder, "alerts_status": alert_decoder}
DECODERS: dict[str, Any] = {**BOUNDED, **TOLERANT}
