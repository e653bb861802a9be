"""The log on Apache Kafka: the same interface and contract as the embedded one."""
