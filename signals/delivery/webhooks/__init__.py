"""Events posted to those who cannot hold a stream open: subscriptions, queues, retries, dead letters."""
