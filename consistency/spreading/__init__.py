"""A run that is spread over several processes: planned, judged and recorded by one, read by many.

messages.py     what goes between them: an order, units of work, what came of each; never a secret
planning.py     a table's leaves in units
reading.py      a worker's duty: to read units of leaves
opening.py      what a worker opens for an order, with connections of its own
port.py         what a set of workers can do, and what a worker does; local.py and dask_workers.py are such sets
nursery.py      what local workers are forked off; frames.py: what they hear and say (their process is cli/worker.py)
dask_side.py    what runs within the workers of a Dask cluster
handing.py      hands units of any kind out, takes them in, and has what was lost read again
driving.py      leads a run that is read leaf by leaf
assembling.py   its tables, unit by unit
checked.py      what is a check's own, for its driver and its workers; compared.py: a comparison's
"""
