"""All rows of the world as it is, and when a model of a draw from them is due, where hard rows come in bursts; asks nobody.

There an alarm is mostly weather, what an alarm dates is a week of it, and what a model of the newest rows lacks is other weather.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

DRAWN_ROWS = 3_200  # independent ones, that such a model is fitted on: other weather teaches more than more of the same
GROWN = 1.25  # times the rows at the last such model, until the next


@dataclass
class World:
    """State: since when rows count (0: all), how many they are, and how many they were when the newest model of them was asked for.

    burst_pace: blocks per independent piece of evidence, as far as bursts of hard rows are the reason; 1: none.
    """

    since_us: int = 0
    rows: int = 0
    tried_at_rows: int = 0

    def labelled(self, predicted_for_us: int) -> None:
        """One more mature labelled row."""
        self.rows += predicted_for_us >= self.since_us

    def begins(self, since_us: int, rows: int) -> None:
        """Rows from before a time are of another world: something changed there that was no burst. rows: those since."""
        self.since_us, self.rows, self.tried_at_rows = since_us, rows, 0

    def tried(self) -> None:
        """A model of all rows is asked for, or is there."""
        self.tried_at_rows = self.rows

    def drawn_rows(self, burst_pace: int) -> int:
        """Rows that the next model of all rows is fitted on; 0 where there are no bursts, or not twice as many rows."""
        drawn = DRAWN_ROWS * burst_pace
        return drawn if burst_pace > 1 and self.rows >= 2 * drawn else 0

    def is_due(self, burst_pace: int, left_rows: int) -> bool:
        """Whether the rows have grown by what such a model costs, and by a quarter, and it is paid for."""
        drawn = self.drawn_rows(burst_pace)
        return 0 < drawn <= left_rows and self.rows >= max(self.tried_at_rows + drawn, GROWN * self.tried_at_rows)

    @property
    def because(self) -> str:
        """Why, in words."""
        return f"{self.rows} mature labelled rows, {self.tried_at_rows} when a model of all of them was last tried"

    def as_list(self) -> list[int]:
        """As plain values, for a snapshot."""
        return list(astuple(self))
