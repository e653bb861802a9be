"""Cordon in one process: gateway, log, grouping, detectors, kill switch, streams and store, wired together."""

from deploy.embedded.process import Embedded, RunningEmbedded, running

__all__ = ["Embedded", "RunningEmbedded", "running"]
