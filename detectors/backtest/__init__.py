"""Fleets and incidents with a known truth: they feed the replay and score detectors."""
