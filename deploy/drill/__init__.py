"""Runs drills: a synthetic bad rollout through a running Cordon, from the gateway to a verified kill."""
