"""The boards, a file each: what is shown, in which order. How Grafana spells it stands in `panels`."""
