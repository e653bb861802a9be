"""From the kill switch to whoever must get up at night: routes, incidents, an outbox on the log, and channels."""
