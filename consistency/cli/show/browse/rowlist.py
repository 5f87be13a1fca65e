"""A list of any length: it draws only visible lines, and knows the row under the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from consistency.cli.show.browse.shelf import Entry

MARK = "*"
_NUMBER, _KIND, _TABLE = 7, 14, 14
"""The widths of a number, of the longest kind, and the least for a table's name that is cut."""
_LABEL = 400
"""A longer key is cut in the list; the detail shows all of it."""


def _end_of(name: str, cells: int) -> str:
    """Return a name, or the end of a long name, which tells tables apart better than the keyspace."""
    if cell_len(name) <= cells:
        return name
    name = name[-cells:]
    while cell_len(name) >= cells:
        name = name[1:]
    return f"…{name}"


class RowList(ScrollView, can_focus=True):
    """Rows with their marks; posts `Moved` when the cursor is on another one, `Toggled` when a mark changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "move_page(-1)", "Page up", show=False),
        Binding("pagedown", "move_page(1)", "Page down", show=False),
        Binding("home", "jump(0)", "First", show=False),
        Binding("end", "jump(-1)", "Last", show=False),
        Binding("space", "mark", "Mark"),
    ]

    cursor: reactive[int] = reactive(0)

    class Moved(Message):
        """The cursor moved to another row, or to none."""

    class Toggled(Message):
        """A row was marked or unmarked."""

    def __init__(self, marked: set[int]) -> None:
        super().__init__(id="rows")
        self._rows: Sequence[Entry] = ()
        self._marked = marked
        self._kind = self._table = 0
        """The widths of the columns; the table is left out if all rows are of one."""

    @property
    def rows(self) -> Sequence[Entry]:
        """The rows in the list."""
        return self._rows

    @property
    def current(self) -> Entry | None:
        """The row that the cursor is on."""
        return self._rows[self.cursor] if 0 <= self.cursor < len(self._rows) else None

    def show(self, rows: Sequence[Entry]) -> None:
        """Show other rows; the cursor stays on its row if that is among them."""
        was = self.current
        self._rows = rows
        self._kind = min(_KIND, max((len(kind.value) for kind in {row.kind for row in rows}), default=0)) + 2
        tables = {row.table for row in rows}
        self._table = max(map(cell_len, tables)) + 2 if len(tables) > 1 else 0
        self.virtual_size = Size(self._width(), len(rows))
        at = rows.index(was) if was in rows else 0
        moved = at != self.cursor
        self.cursor = at
        if not moved:
            self._follow()
        self.refresh()

    def _width(self) -> int:
        longest = max((len(row.label) for row in self._rows), default=0)
        return 3 + _NUMBER + self._kind + self._table + min(longest, _LABEL)

    def watch_cursor(self) -> None:
        """Bring the cursor into view, and say that it moved."""
        self._follow()
        self.refresh()

    def _follow(self) -> None:
        self.scroll_to_region(Region(self.scroll_offset.x, self.cursor, 1, 1), animate=False, force=True)
        self.post_message(self.Moved())

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        offset = self.scroll_offset
        at = y + offset.y
        if at >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        strip = Strip(self._segments(self._rows[at]))
        style = self.rich_style
        if at == self.cursor:
            style += Style(reverse=self.has_focus, bold=True)
        return strip.crop_extend(offset.x, offset.x + self.size.width, style).apply_style(style)

    def _segments(self, row: Entry) -> list[Segment]:
        marked = row.number in self._marked
        segments = [
            Segment(f"{MARK if marked else ' '} ", Style(color="yellow", bold=True)),
            Segment(f"{row.number:>{_NUMBER - 1},} ", Style(dim=True)),
            Segment(set_cell_size(row.kind.value.replace("_", " "), self._kind), Style(color="red")),
        ]
        if self._table:
            cells = min(self._table, max(_TABLE, self.size.width // 4) + 2)
            segments.append(Segment(set_cell_size(_end_of(row.table, cells - 2), cells)))
        return [*segments, Segment(row.label[:_LABEL])]

    def on_click(self, event: object) -> None:
        """Put the cursor where the mouse clicked."""
        y = getattr(event, "y", None)
        if isinstance(y, int) and 0 <= y + self.scroll_offset.y < len(self._rows):
            self.cursor = y + self.scroll_offset.y

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self.cursor = max(0, min(len(self._rows) - 1, self.cursor + by))

    def action_move_page(self, by: int) -> None:
        """Move the cursor by a screen."""
        self.action_move(by * max(1, self.size.height - 1))

    def action_jump(self, to: int) -> None:
        """Move the cursor to the first or the last row."""
        self.cursor = max(0, len(self._rows) - 1) if to < 0 else to

    def action_mark(self) -> None:
        """Mark or unmark the row at once, before the next key is handled."""
        row = self.current
        if row is None:
            return
        self._marked ^= {row.number}
        self.refresh()
        self.action_move(1)
        self.post_message(self.Toggled())
