"""Benchmarks: each target prints a table and writes build/bench/NAME.json."""
