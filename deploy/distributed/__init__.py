"""Cordon on many machines: the composition roots of gateway, worker and signals, and the supervisor that runs them."""
