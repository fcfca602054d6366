"""Grafana: the same panels as JSON, alert rules, and what brings them there."""
