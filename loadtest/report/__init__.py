"""What a run shows: summary.json (summary.py), tables (export.py) and the page (html.py)."""
