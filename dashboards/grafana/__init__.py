"""Grafana boards as code: queries, variables and layout in separate files, and the JSON that is made of them."""
