"""Decide, number and sign: from verdicts and people's commands to kill-switch events."""
