"""The gateway: HTTP posts in, durable batches, ticks and rollout notices in the log out."""
