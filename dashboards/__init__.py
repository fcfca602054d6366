"""Panels as one table, shown by Grafana and by the local page."""
