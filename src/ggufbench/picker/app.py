"""Screen of the picker: a filter, the table of models, and the details of the highlighted model."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, Static

from ggufbench.picker.entries import SORTS, Order, PickerEntry, matching, ordered
from ggufbench.picker.text import Column, cell, details, fitting, heading

KEYS = (
    ("type", "filter the list: the name, repository or quantization must contain each word"),
    ("up, down", "move the highlight; also page up and page down"),
    ("enter", "choose the highlighted model"),
    ("tab", "switch between the filter and the table"),
    ("ctrl+s", "sort by the next column; in the table also s"),
    ("ctrl+r", "reverse the order; in the table also r"),
    ("esc, ctrl+c", "leave without a choice; in the table also q"),
    ("mouse", "click a heading to sort, a highlighted model to choose it"),
    ("! model", "the details below the table contain a warning"),
    ("model ~", "synthetic: random weights"),
    ("-", "never measured on this machine"),
)

_SCROLLBAR = 1


class Filter(Input):
    """Filter input; passes the keys of the table on to the table."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "app.choose", "Choose"),
        Binding("up", "app.move('cursor_up')", show=False),
        Binding("down", "app.move('cursor_down')", show=False),
        Binding("pageup", "app.move('page_up')", show=False),
        Binding("pagedown", "app.move('page_down')", show=False),
        Binding("ctrl+home", "app.move('scroll_top')", show=False),
        Binding("ctrl+end", "app.move('scroll_bottom')", show=False),
    ]

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Type everything except a question mark, which shows the keys; repository names contain slashes."""
        return key == "slash" or (key != "question_mark" and super().check_consume_key(key, character))


class Models(DataTable[Text]):
    """Table of models."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "app.choose", "Choose"),
        Binding("s", "app.sort_next", show=False),
        Binding("r", "app.reverse", show=False),
        Binding("q", "app.leave", show=False),
    ]


class Keys(ModalScreen[None]):
    """Screen that explains the keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,space,q", "dismiss", show=False)]

    def compose(self) -> ComposeResult:
        """Create the list of keys."""
        lines = Table.grid(padding=(0, 2, 0, 0))
        lines.add_column(no_wrap=True)
        for key, what in KEYS:
            lines.add_row(Text(key, style="bold"), what)
        with VerticalScroll():
            yield Static(lines)

    def on_click(self) -> None:
        """Close this screen."""
        self.dismiss()


class Picker(App[PickerEntry]):
    """The picker application; `run()` returns the chosen entry, or None."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = "Filter"
    TITLE = "ggufbench pick"
    CSS = """
    #filter-row { height: 1; }
    #filter-row Label { padding: 0 1; }
    Filter, Filter:focus { width: 1fr; height: 1; border: none; padding: 0; }
    Models { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    #below { height: auto; max-height: 45%; padding: 0 1; border-top: solid $primary; }
    Keys { align: center middle; }
    Keys VerticalScroll { width: 70; max-width: 100%; height: auto; max-height: 100%; padding: 0 1;
                          border: solid $primary; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave"),
        Binding("question_mark,f1", "keys", "Keys", key_display="?", priority=True),
        Binding("ctrl+s", "sort_next", "Sort"),
        Binding("ctrl+r", "reverse", "Reverse"),
        Binding("ctrl+c,ctrl+q", "leave", show=False, priority=True),
        # Priority, so that the focus moves before the next key: keys may arrive faster than they are handled.
        Binding("tab,shift+tab", "turn", show=False, priority=True),
        Binding("slash", "turn", show=False, priority=True),
    ]

    def __init__(self, entries: Sequence[PickerEntry], words: str = "", order: Order | None = None) -> None:
        """`words` is the initial text of the filter."""
        super().__init__()
        self.entries = entries
        self.order = order or Order()
        self.shown: list[PickerEntry] = []
        """The entries in the order of the table."""
        self.table = Models(cursor_type="row")
        self._words = words
        self._width = -1
        self._columns: list[tuple[Column, int]] = []
        self._made: dict[int, list[Text]] = {}

    def compose(self) -> ComposeResult:
        """Create filter, table, details and footer."""
        self._filter = Filter(self._words, select_on_focus=False)
        self._count, self._details = Label(), Static()
        with Horizontal(id="filter-row"):
            yield Label("Filter")
            yield self._filter
            yield self._count
        yield self.table
        with VerticalScroll(id="below", can_focus=False):
            yield self._details
        yield Footer()

    def on_mount(self) -> None:
        """Leave cleanly on SIGINT and SIGTERM, so that the terminal is restored."""
        loop = asyncio.get_running_loop()
        # Windows lacks these handlers, and only the main thread may set them.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.action_leave)

    def on_resize(self, event: Resize) -> None:
        """Show the columns that fit into the new width."""
        self._show(event.size.width)

    @property
    def highlighted(self) -> PickerEntry | None:
        """The entry under the cursor, which `enter` chooses."""
        row = self.table.cursor_row
        return self.shown[row] if 0 <= row < len(self.shown) else None

    @on(Input.Changed)
    def narrow(self) -> None:
        """Show the entries that match the filter, if the filter changed."""
        if self._filter.value != self._words:
            self._words = self._filter.value
            self._show(self._width)

    @on(DataTable.RowHighlighted)
    def describe(self) -> None:
        """Show the details of the highlighted model."""
        nothing = f"No name, repository or quantization contains all of: {self._words}"
        self._details.update(details(self.highlighted, nothing))

    @on(DataTable.HeaderSelected)
    def sort_by_heading(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column; reverse the order if the table is already sorted by it."""
        by = self._columns[event.column_index][0].by
        if by is not None:
            self._sort(Order(by, reverse=by == self.order.by and not self.order.reverse))

    @on(DataTable.RowSelected)
    def action_choose(self) -> None:
        """End with the highlighted model."""
        self.narrow()  # the event of the last letter may follow that of this key
        if self.highlighted is not None:
            self.exit(self.highlighted)

    def action_leave(self) -> None:
        """End without a choice."""
        self.exit(None)

    def action_keys(self) -> None:
        """Show or close the explanation of the keys."""
        if isinstance(self.screen, Keys):
            self.screen.dismiss()
        else:
            self.push_screen(Keys())

    def action_move(self, how: str) -> None:
        """Move the highlight as the table would for its own key."""
        self.narrow()
        getattr(self.table, f"action_{how}")()

    def action_turn(self) -> None:
        """Switch the focus between the filter and the table."""
        if not isinstance(self.screen, Keys):
            self.set_focus(self.table if self.focused is self._filter else self._filter)

    def action_sort_next(self) -> None:
        """Sort by the next column."""
        self._sort(Order(SORTS[(SORTS.index(self.order.by) + 1) % len(SORTS)]))

    def action_reverse(self) -> None:
        """Reverse the order."""
        self._sort(Order(self.order.by, not self.order.reverse))

    def _sort(self, order: Order) -> None:
        self.order = order
        self._show(self._width)

    def _show(self, width: int) -> None:
        """Refill the table; the highlight stays on its model if that is still listed."""
        table, before = self.table, self.highlighted
        self._lay_out(width)
        self.shown = ordered(matching(self.entries, self._words), self.order)
        table.clear(columns=True)
        for column, cells in self._columns:
            table.add_column(heading(column, self.order), width=cells)
        table.add_rows(self._cells(entry) for entry in self.shown)
        if before in self.shown:
            table.move_cursor(row=self.shown.index(before), animate=False)
        self._count.update(f"{len(self.shown)} of {len(self.entries)}")
        self.describe()

    def _lay_out(self, width: int) -> None:
        """Choose the columns again if the width changed."""
        if width != self._width:
            self._width = width
            self._columns = fitting(self.entries, width - _SCROLLBAR)
            self._made.clear()

    def _cells(self, entry: PickerEntry) -> list[Text]:
        """Cells of one entry; cached per width, because each typed letter refills the table."""
        key = id(entry)
        if key not in self._made:
            self._made[key] = [cell(column, entry, cells) for column, cells in self._columns]
        return self._made[key]
