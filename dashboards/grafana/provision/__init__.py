"""Brings a Grafana to what Cordon's boards need: folder, data sources, boards, alert rules, a contact point."""
