"""The alerts job: asks the store for crash patterns, has them judged, and writes alerts into the log."""
