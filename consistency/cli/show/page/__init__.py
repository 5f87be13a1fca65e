"""The report of a check as one HTML file that needs nothing else: `check --html`.

    collect.py   keeps what the page shows of the findings while the check runs
    payload.py   those findings as compact JSON, safe inside a script element
    ring.py      the ring as arcs: one track a node, coloured by state
    history.py   when the differing rows were written, as bars
    render.py    the page, from templates/page.html, page.css and page.js

Text from the cluster passes through `render.visible`, then through the template's escaping or `textContent`.
"""
