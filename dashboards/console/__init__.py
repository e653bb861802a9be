"""The console: live pages for people, served by the streams listener, for those without a Grafana."""
