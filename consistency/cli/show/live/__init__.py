"""The live page of a watch: what it knows of every range, table and replica now, without keys and values.

    ring_map.py   each replica's ranges of every table: 64 cells, their state and the time of their last clean pass
    trend.py      the rows that differ over time, by kind and by replica
    reports.py    the HTML report of each visit, in a folder; only reports without keys are read back
    state.py      all of it, as the watch goes on
    figures.py    the state as figures and words for the templates
    render.py     the page and its sections, from templates/

The watch's thread writes the state; the thread that serves reads it and renders what changed, once for all open pages.
"""
