"""Rollout scripts in Python, to copy: a package only so that layers and types are checked."""
