"""What a user sees: progress while a command runs, and its result on one screen.

    console.py    where the text goes: colour only on a terminal, ASCII elsewhere
    counts.py     counts the events of a check (an Observer)
    progress.py   shows these counts: live on a terminal, a few lines elsewhere
    summary.py    the report of a check, made of tables.py, strip.py, problems.py
    rowview.py    one row on all its replicas, cell by cell

Nothing here decides anything: it renders frozen values. Names, keys and messages that come from the cluster
pass through `cqltext.visible` and are never read as markup.
"""
