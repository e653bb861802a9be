"""The log: the only run-time link between gateway, grouping, detectors and signals."""
