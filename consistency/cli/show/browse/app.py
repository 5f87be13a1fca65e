"""The screen: filters on the left, rows on the right, one row's replicas below; marked rows go to a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, ScrollableContainer
from textual.widgets import Footer, Input, Static, Tree

from consistency.cli.show.browse.detail import row_text
from consistency.cli.show.browse.rowlist import RowList
from consistency.cli.show.browse.shelf import SLICES, Choice, Shelf
from consistency.errors import UsageError
from consistency.model.cqltext import visible
from consistency.results.figures import counted


class Browser(App[int]):
    """Browses a shelf; returns how many rows were written to `output`."""

    TITLE = "consistency browse"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 1; background: $primary; color: $text; padding: 0 1; }
    Horizontal { height: 1fr; }
    #choices { width: 34; border-right: solid $primary-darken-2; }
    #rows { width: 1fr; overflow-x: hidden; }
    #detail { height: auto; max-height: 45%; min-height: 7; border-top: solid $primary-darken-2; padding: 0 1; }
    #row { width: auto; }
    #words { display: none; }
    #words.asked { display: block; }
    Screen.narrow #choices { width: 25; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "ask", "Filter", key_display="/"),
        Binding("a", "mark_all", "Mark shown"),
        Binding("u", "unmark_all", "Unmark shown"),
        Binding("w", "write", "Write marked"),
        Binding("escape", "leave_filter", "Clear filter", show=False),
        Binding("q", "leave", "Quit"),
    ]

    def __init__(self, shelf: Shelf, output: Path) -> None:
        super().__init__()
        self._shelf = shelf
        self._output = output
        self._choice = Choice()
        self._marked: set[int] = set()
        self._saved: frozenset[int] = frozenset()
        self._written = 0
        self._warned = False

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static(id="head", markup=False)
        with Horizontal():
            yield self._choices()
            yield RowList(self._marked)
        with ScrollableContainer(id="detail"):
            yield Static(id="row", markup=False)
        yield Input(id="words", placeholder="words: key, token, table, kind, node (Enter: done, Escape: none)")
        yield Footer()

    def _choices(self) -> Tree[Choice]:
        shelf = self._shelf
        tree: Tree[Choice] = Tree(Text(counted(len(shelf.entries), "row")), data=Choice(), id="choices")
        tree.guide_depth = 2
        tree.root.expand()
        tables = tree.root.add("tables", data=Choice(), expand=True)
        for table, count in shelf.by_table.most_common():
            branch = tables.add(Text(f"{count:,} {table}"), data=Choice(table=table))
            for part, token_range in enumerate(SLICES):
                if inside := shelf.by_part[table, part]:
                    label = f"{inside:,} in {part + 1}/{len(SLICES)} of the ring {token_range}"
                    branch.add_leaf(Text(label), data=Choice(table=table, part=part))
        kinds = tree.root.add("kinds", data=Choice(), expand=True)
        for kind, count in shelf.by_kind.most_common():
            kinds.add_leaf(Text(f"{count:,} {kind.value.replace('_', ' ')}"), data=Choice(kind=kind))
        replicas = tree.root.add("differs on", data=Choice(), expand=True)
        for name, count in shelf.by_replica.most_common():
            replicas.add_leaf(Text(f"{count:,} {name}"), data=Choice(replica=name))
        return tree

    def on_mount(self) -> None:
        """Show everything, the cursor in the rows."""
        self.screen.set_class(self.size.width < 100, "narrow")
        self._list.show(self._shelf.entries)
        self._list.focus()
        self._say()

    def on_resize(self) -> None:
        """Make the filters narrower on a narrow screen."""
        self.screen.set_class(self.size.width < 100, "narrow")

    @property
    def _list(self) -> RowList:
        return self.query_one(RowList)

    def _say(self) -> None:
        shown, total = len(self._list.rows), len(self._shelf.entries)
        amount = counted(total, "row") if shown == total else f"{shown:,} of {counted(total, 'row')}"
        cluster = visible(str(self._shelf.header.get("cluster", "")))
        text = f"{cluster}  {amount}, {len(self._marked):,} marked  {visible(self._shelf.path.name)}"
        self.query_one("#head", Static).update(Text(text, overflow="ellipsis", no_wrap=True))

    def _look_at(self, choice: Choice) -> None:
        self._choice = choice
        self._list.show(self._shelf.matching(choice))
        self._say()

    @on(Tree.NodeHighlighted)
    def _chosen(self, event: Tree.NodeHighlighted[Choice]) -> None:
        if event.node.data is not None and self.query_one(Tree).has_focus:
            self._look_at(replace(event.node.data, words=self._choice.words))

    @on(RowList.Moved)
    def _moved(self) -> None:
        row = self._list.current
        detail = self.query_one("#row", Static)
        if row is None:
            detail.update(Text("no row matches", style="dim"))
            return
        try:
            text, width = row_text(self._shelf.finding(row), row.number)
        except UsageError as error:
            text, width = Text(str(error), style="red"), 0
        # Replicas that do not fit are scrolled, not cut.
        detail.styles.width = max(width, self.size.width - 4)
        detail.update(text)

    @on(RowList.Toggled)
    def _toggled(self) -> None:
        self._warned = False
        self._say()

    def action_mark_all(self) -> None:
        """Mark every row that is shown."""
        self._mark({row.number for row in self._list.rows}, set())

    def action_unmark_all(self) -> None:
        """Unmark every row that is shown."""
        self._mark(set(), {row.number for row in self._list.rows})

    def _mark(self, more: set[int], fewer: set[int]) -> None:
        self._marked |= more
        self._marked -= fewer
        self._warned = False
        self._list.refresh()
        self._say()

    def action_write(self) -> None:
        """Write the marked rows to the output file."""
        if not self._marked:
            self.notify("no row is marked: space marks one, a marks all that are shown", severity="warning")
            return
        try:
            self._written = self._shelf.write(self._output, self._marked)
        except UsageError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self._saved = frozenset(self._marked)
        self.notify(f"{counted(self._written, 'row')} written to {visible(str(self._output))}", markup=False)

    def action_ask(self) -> None:
        """Open the filter."""
        words = self.query_one("#words", Input)
        words.add_class("asked")
        words.focus()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._look_at(replace(self._choice, words=tuple(event.value.lower().split())))

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.query_one("#words", Input).set_class(bool(self._choice.words), "asked")
        self._list.focus()

    def action_leave_filter(self) -> None:
        """Clear the filter and close it."""
        words = self.query_one("#words", Input)
        words.value = ""
        words.remove_class("asked")
        self._list.focus()

    def action_leave(self) -> None:
        """Quit; warn first if marked rows were not written."""
        if self._marked - self._saved and not self._warned:
            self._warned = True
            text = f"{counted(len(self._marked), 'marked row')} not written: w writes, q again leaves"
            self.notify(text, severity="warning")
            return
        self.exit(self._written)
