"""Bring events to those who asked for them: streams and verdict endpoints."""
