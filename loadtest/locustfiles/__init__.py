"""Locust files, unmodified, on the fleet: Locust's own master and workers, each request a row like any other.

options.py    what `loadtest run --locustfile` was asked for
master.py     the process of Locust's master, beside the driver
worker.py     the process of one of Locust's workers, under a host: its events become Results
outcomes.py   what Locust says of a request -> error word, status
host.py       what a host does differently for such a worker
driver.py     supervises the master, watches the hosts, ends in order
session.py    from the arguments to the exit status
user.py       InferenceUser: token-level calls for authors of locustfiles
"""
