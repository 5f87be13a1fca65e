"""How many rows are asked for at once: as many as the memory for a page of them allows, on the servers and here."""

from __future__ import annotations

from consistency.cluster import selects
from consistency.cluster.pinned import PinnedAccess
from consistency.cluster.wire import ONE, Page, Statement
from consistency.errors import ReplicaError
from consistency.model.reading import Reading
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange

_SAMPLED_ROWS = 10
_UNKNOWN_ROW_BYTES = 4096
_LARGE_ROW_BYTES = 256 * 1024


class RowSizes:
    """What is known of how large each table's rows are, and the statements whose pages are made for that."""

    def __init__(self, access: PinnedAccess) -> None:
        self._access = access
        self._read: dict[str, int] = {}
        self._stored: dict[str, int] = {}

    async def learn(self, node: Node, reading: Reading) -> None:
        """Learn once how large a table's rows are: a page of a digest is held in the server's memory.

        Whichever replica answers will do: a range read at ONE. Where none does, rows are taken to be large.
        """
        name = reading.table.full_name
        if name in self._stored:
            return
        self._stored[name] = _UNKNOWN_ROW_BYTES
        text = selects.select_rows(reading.full, TokenRange.full_ring())
        # One row first: ten of the largest would be a hundred megabytes.
        for count in (1, _SAMPLED_ROWS):
            sample = Statement(f"{text} LIMIT {count}", consistency=ONE, page_size=count)
            try:
                page = await self._access.retrying(node, sample)
            except ReplicaError:
                return
            self._stored[name] = max(1, len(page.body) // page.row_count) if page.row_count else 1
            if page.row_count < count or self._stored[name] > _LARGE_ROW_BYTES:
                return

    def saw(self, reading: Reading, page: Page) -> None:
        """Take note of a page of rows as they are sent to us."""
        self._read[reading.table.full_name] = max(1, len(page.body) // page.row_count)

    def stored(self, reading: Reading) -> int:
        """Return how many bytes a row takes on a node."""
        return self._stored.get(reading.table.full_name, _UNKNOWN_ROW_BYTES)

    def hashed(self, reading: Reading, text: str, now_s: int, values: tuple[bytes, ...] = ()) -> Statement:
        """Return a statement that has a node hash rows: its page is what the node holds at once."""
        return self._statement(reading, text, values, self.digest_page_rows(reading), now_s)

    def sent(self, reading: Reading, text: str, now_s: int, values: tuple[bytes, ...] = ()) -> Statement:
        """Return a statement that has a node send rows: its page is what is held here as well."""
        return self._statement(reading, text, values, self.page_rows(reading), now_s)

    def _statement(
        self, reading: Reading, text: str, values: tuple[bytes, ...], page_rows: int, now_s: int
    ) -> Statement:
        instant = now_s if reading.capabilities.timed else None
        return Statement(text, values, page_size=page_rows, now_s=instant, timeout_s=self._access.limits.timeout_s)

    def digest_page_rows(self, reading: Reading) -> int:
        """Return how many rows a node is asked to hold at once: they stay there, only hashes leave it.

        A node copies a row several times over before it has hashed it; large ones weigh on a small heap.
        """
        limits, row_bytes = self._access.limits, self.stored(reading)
        copies = 4 if row_bytes > _LARGE_ROW_BYTES else 1
        return max(1, min(limits.digest_page_rows, limits.page_bytes // copies // row_bytes))

    def page_rows(self, reading: Reading) -> int:
        """Return how many rows a node is asked to send at once."""
        limits = self._access.limits
        row_bytes = self._read.get(reading.table.full_name) or self.stored(reading)
        return max(1, min(limits.page_rows, limits.page_bytes // 4 // row_bytes))
