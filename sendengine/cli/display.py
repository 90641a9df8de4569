"""Shows progress while a run goes on: live on a terminal, elsewhere a plain line every ten seconds.

Units: ``_s`` is seconds on the running loop's clock.
Method: the text is laid out beforehand and given to rich as it is. A rich table takes 3 ms to lay out, in which
nothing is sent; this takes 0.2 ms.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sendengine.cli.output import is_terminal, note
from sendengine.cli.progress import Glance, Teller

LIVE_EVERY_S: Final = 0.5
LINE_EVERY_S: Final = 10.0

Look = Callable[[], Glance]


@asynccontextmanager
async def shown(look: Look) -> AsyncIterator[None]:
    """Show what ``look`` returns for as long as the block runs, and once more at its end; on standard error."""
    teller = Teller(now_s=asyncio.get_running_loop().time())
    task = asyncio.create_task(_live(look, teller) if is_drawable() else _lines(look, teller))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def is_drawable() -> bool:
    """Whether standard error is a terminal that can be drawn on, as one with ``TERM=dumb`` cannot."""
    return is_terminal(sys.stderr) and not Console(stderr=True).is_dumb_terminal


async def _live(look: Look, teller: Teller) -> None:
    loop = asyncio.get_running_loop()
    console = Console(stderr=True, highlight=False)

    def text() -> Text:
        return Text(teller.screen(look(), now_s=loop.time()), overflow="fold")  # a narrow terminal loses nothing

    with Live(text(), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=True) as live:
        try:
            while True:
                await asyncio.sleep(LIVE_EVERY_S)
                live.update(text(), refresh=True)
        finally:
            live.update(text(), refresh=True)


async def _lines(look: Look, teller: Teller) -> None:
    loop = asyncio.get_running_loop()
    teller.line(look(), now_s=loop.time())
    try:
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            note(teller.line(look(), now_s=loop.time()))
    finally:
        note(teller.line(look(), now_s=loop.time()))
