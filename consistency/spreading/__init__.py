"""A check that is spread over several processes: planned, judged and recorded by one, read by many.

messages.py     what goes between them: an order, units of work, what came of each; never a secret
planning.py     a table's leaves in units
reading.py      a worker's duty: to read units with connections of its own
port.py         what a set of workers can do; local.py and dask_workers.py are such sets
frames.py       what a local worker hears and says (its process is cli/worker.py)
dask_side.py    what runs within the workers of a Dask cluster
driving.py      hands units out, takes them in, and has what was lost read again
assembling.py   the report of the whole
"""
