"""Stopping in two steps."""

import asyncio
import os
import signal

import pytest

from sendengine.cli.loop import run
from sendengine.cli.signals import Stop, listening


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_the_second_aborts_and_a_third_changes_nothing(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[str] = []

    async def command() -> None:
        arrived = asyncio.Event()

        def step(name: str) -> None:
            steps.append(name)
            arrived.set()

        stop = Stop(on_drain=lambda: step("drain"), on_abort=lambda: step("abort"))
        with listening(stop):
            for expected in (["drain"], ["drain", "abort"]):
                os.kill(os.getpid(), number)
                await arrived.wait()
                arrived.clear()
                assert steps == expected
        assert (stop.is_draining, stop.is_aborting) == (True, True)
        stop.signalled()

    run(command)
    assert steps == ["drain", "abort"]
    said = capsys.readouterr().err.split("\n")
    assert [line.partition(":")[0] for line in said if line] == ["Stopping", "Aborting"]


def test_a_command_runs_on_uvloop_and_its_result_comes_back() -> None:
    async def command() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run(command) == "uvloop"


def test_after_the_block_signals_are_as_before() -> None:
    async def command() -> None:
        with listening(Stop(on_drain=lambda: None, on_abort=lambda: None)):
            pass

    run(command)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
