"""The incident report: one rollout's story in one self-contained page."""
