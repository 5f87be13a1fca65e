"""The page of an audit: its verdict, how the data lies on nodes and racks, and the rules that are broken."""

from __future__ import annotations

from markupsafe import Markup

from consistency import __version__
from consistency.api import AuditReport
from consistency.cli.show.page.render import MOST_NODES, MOST_TABLES, asset, environment, gravest_first, policy
from consistency.cli.show.terminal.audit import audit_basis, audit_claim
from consistency.cli.show.terminal.distribution import WHICH_PARTITIONS
from consistency.results.distribution import by_rack


def render_audit(report: AuditReport) -> str:
    """Return the page of an audit, which holds no key at all."""
    css, (word, said) = asset("page.css"), audit_claim(report)
    held = report.distribution
    shares, tables = (held.shares, held.tables) if held is not None else ([], [])
    return (
        environment("consistency.cli.show.page")
        .get_template("audit.html")
        .render(
            report=report,
            word=word,
            tone={"violated": "divergent", "in order": "consistent"}.get(word, word),
            claim=said,
            basis=audit_basis(report),
            shares=shares[:MOST_NODES],
            more_shares=len(shares[MOST_NODES:]),
            racks=by_rack(shares),
            tables=tables[:MOST_TABLES],
            more_tables=len(tables[MOST_TABLES:]),
            which=WHICH_PARTITIONS,
            violations=gravest_first(report.violations),
            css=Markup(css),  # noqa: S704 - our own file
            policy=policy(css),
            version=__version__,
        )
    )
