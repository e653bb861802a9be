"""A Kafka broker of one's own, without Docker: for tests, benches and trying out the distributed way."""
