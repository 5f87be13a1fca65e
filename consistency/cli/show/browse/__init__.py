"""Look through a findings file in the terminal: `consistency browse`.

shelf.py     the file as an index by table, range, kind and replica, and its filter
rowlist.py   a list of any length that draws only visible lines
detail.py    one row's replicas side by side
app.py       the screen and its keys
"""
