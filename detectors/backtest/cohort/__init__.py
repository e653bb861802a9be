"""Fleets simulated at the level of cohorts: per-device arrays and sorted events, no reports, no bytes."""

from detectors.backtest.cohort.simulation import CohortError, simulate

__all__ = ["CohortError", "simulate"]
