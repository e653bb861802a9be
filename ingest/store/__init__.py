"""ClickHouse: the sink that fills it, the numbered migrations, the queries, and the read-only endpoint.

Beside the stream, never in it: no verdict reads the store. See README.md.
"""
