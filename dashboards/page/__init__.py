"""The local page, `loadtest ui`: the dashboards of panels.py against any store, without Grafana and without a network.

guard.py    who may ask: the token, the Host header, the headers of every answer
reader.py   the one thread that asks the store, as a user who may only read
app.py      addresses and what answers them
shell.py    what every page has around it
assets/     styles and scripts; the chart library and the report's styles are taken from loadtest/report/assets
"""
