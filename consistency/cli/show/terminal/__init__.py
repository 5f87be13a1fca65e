"""What a person sees: progress while a command runs, and its result on one screen.

    console.py    where the text goes: colour only on a terminal, ASCII elsewhere
    figures.py    numbers, spans and moments as people read them
    tally.py      counts what a check does (an Observer)
    progress.py   shows the tally: live on a terminal, sparse lines elsewhere
    summary.py    the report of a check, made of tables.py, strip.py, problems.py
    rowview.py    one row on all its replicas, cell by cell

Nothing here decides anything: it renders frozen values. Names, keys and messages that come from the cluster
pass through `render.visible` and are never read as markup.
"""
