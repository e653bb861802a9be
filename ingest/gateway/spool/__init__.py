"""The gateway's spool: where accepted reports wait on disk while Kafka is away or slow."""
