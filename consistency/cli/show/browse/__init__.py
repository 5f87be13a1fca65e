"""Look through a findings file in the terminal: `consistency browse`.

shelf.py     the file as an index: what is in it by table, range, kind and replica, and what matches
rowlist.py   a list of any length that draws only what is seen
detail.py    one row's replicas side by side
app.py       the screen and its keys
"""
