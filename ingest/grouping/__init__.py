"""Deduplicate reports, keep the fleet's state, and say cohort windows at every tick of the gateways' clock."""
