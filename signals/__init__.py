"""Verdicts come in, everything that leaves the pipeline goes out.

The kill switch with its state machine, signing and audit trail, and the ways its events reach rollout systems and
people. Imports `detectors` and `ingest`, never `dashboards` or `deploy`.
"""
