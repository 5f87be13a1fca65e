"""The result of a run as one HTML file that needs nothing else: `check --html`, `audit --html`, `compare --html`.

    collect.py     keeps what the page shows of the findings while the check runs
    payload.py     those findings as compact JSON, safe inside a script element
    ring.py        the ring as arcs: one track a node, coloured by state
    history.py     when the differing rows were written, as bars
    render.py      the page of a check, from templates/page.html, page.css and page.js
    audit.py       the page of an audit
    comparison.py  the page of a comparison; token_line.py keeps where along the ring its rows differ

All pages have one frame, templates/layout.html, and share pieces of templates/shared.html.

Text from the cluster passes through `render.visible`, then through the template's escaping or `textContent`.
"""
