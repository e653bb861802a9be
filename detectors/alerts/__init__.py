"""Alerts: crash patterns that belong to no rollout, told to people. Nothing here holds or kills."""
