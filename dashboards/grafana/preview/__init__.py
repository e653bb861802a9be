"""One panel of a committed board, drawn from its definition and its own query, where there is no Grafana."""
