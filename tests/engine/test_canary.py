"""The API key is a canary: whatever happens, it is nowhere to be seen."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable
from pathlib import Path

import pytest

from sendengine import (
    NotSentError,
    ReplyLostError,
    SendEngine,
    SendEngineError,
    SendFailedError,
    UpdateUser,
    external_id,
)
from sendengine.settings import RetrySettings, load_settings
from sendengine.transport import open_transport
from tests.support.engines import SOON, change, lane_of, make_engine, make_settings, note, settled
from tests.support.events import listening
from tests.support.fake_transport import Answer, FakeTransport, accept, json_reply, throttle
from tests.support.virtual_loop import run_virtually

CANARY = "os_v2_app_canarysingsinthecoalmine"


async def failing(call: Awaitable[object]) -> list[str]:
    """The traceback of what is bound to fail."""
    with pytest.raises(SendEngineError) as caught:
        await call
    return traceback.format_exception(caught.value)


def everything_about(thing: object, *, depth: int = 4) -> str:
    """The repr of an object, and of what it holds."""
    shown = [repr(thing), str(thing)]
    if depth:
        for name in {*getattr(type(thing), "__slots__", ()), *getattr(thing, "__dict__", {})}:
            value = getattr(thing, str(name), None)
            if type(value).__module__.startswith("sendengine"):
                shown.append(everything_about(value, depth=depth - 1))
    return "\n".join(shown)


def test_it_is_in_no_repr_log_stat_outcome_or_exception_of_an_engine(tmp_path: Path) -> None:
    echo = json_reply(403, {"errors": [f"Access denied. Authorization: Key {CANARY} is no valid API key"]})
    answers: list[Answer] = [
        throttle("1"),
        json_reply(503, {"errors": [f"Authorization: Key {CANARY}"]}),
        NotSentError("refused"),
        ReplyLostError("reset"),
        json_reply(400, {"errors": [f"bad key {CANARY}"]}),
        json_reply(400, {"errors": [f"bad key {CANARY}"]}),
    ]
    said: list[str] = []

    transport = FakeTransport(lambda arrival: answers.pop(0) if answers else accept(arrival))

    async def main() -> None:
        settings = make_settings(tmp_path, app={"api_key": CANARY}, retry=SOON)
        engine = SendEngine(settings, open_transport=lambda *_: transport)
        async with engine:
            said.extend([repr(await settled(await engine.submit(note("a", text=str(n))))) for n in range(10)])
            answers.append(json_reply(503, {"errors": [f"Authorization: Key {CANARY}"]}))
            said.append(
                repr(await settled(await engine.submit(UpdateUser(external_id("u"), deltas={"session_count": 1}))))
            )
            answers.append(json_reply(400, {"errors": [f"bad key {CANARY}"]}))
            said.extend(await failing(engine.send(change("v", a=1))))
            transport.behaviour = lambda _: echo
            receipt = await engine.submit(note("a"))
            await asyncio.sleep(1)
            said.extend([repr(receipt), *await failing(engine.submit(note("a")))])
            lane = lane_of(engine)
            said.extend(everything_about(thing) for thing in (engine, lane, lane.app, settings))
            said.extend(
                repr(thing) for thing in (engine.stats(), engine.health(), engine.counters(), asyncio.all_tasks())
            )
            await engine.abort()

    with listening() as events:
        run_virtually(main())
    text = "\n".join([*said, *events.lines, *(repr(vars(record)) for record in events.records)])
    assert len(text) > 10_000
    assert "held" in text
    assert "canarysings" not in text


def test_it_is_in_no_traceback_with_locals(tmp_path: Path) -> None:
    """Tools such as rich and Sentry show the repr of every local variable of every frame."""
    transport = FakeTransport(lambda _: json_reply(400, {"errors": ["no"]}))
    shown: list[str] = []

    async def main() -> None:
        async with make_engine(tmp_path, transport, app={"api_key": CANARY}) as engine:
            try:
                await engine.send(note("a"))
            except SendFailedError as error:
                shown.extend(traceback.TracebackException.from_exception(error, capture_locals=True).format())

    run_virtually(main())
    assert any("SendEngine" in line for line in shown)
    assert "canarysings" not in "\n".join(shown)


async def test_it_is_in_nothing_that_the_transport_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = make_settings(tmp_path, app={"api_key": CANARY, "base_url": "http://127.0.0.1:9"}, retry=RetrySettings())
    said: list[str] = []
    async with SendEngine(
        settings, open_transport=lambda app, key: open_transport(app, key, settings.transport)
    ) as engine:
        receipt = await engine.submit(note("a", urgency="high", expires_in_s=0.4))
        said.append(repr(await settled(receipt)))
        said.append(everything_about(lane_of(engine).app.transport))
    text = "\n".join([*said, caplog.text])
    assert "canarysings" not in text


@pytest.mark.parametrize("bad", [f"{CANARY}\nX-Injected: 1", f"{CANARY} and more", f"{CANARY}é"])
def test_it_is_in_no_complaint_about_itself(tmp_path: Path, bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", bad)

    async def main() -> list[str]:
        engine = SendEngine(make_settings(tmp_path, app={"api_key": "$THE_KEY"}))
        return await failing(engine.__aenter__())

    said = "".join(run_virtually(main()))
    assert "SettingsError" in said
    assert "canarysings" not in said


def test_settings_from_a_file_do_not_show_it(tmp_path: Path) -> None:
    file = tmp_path / "sendengine.toml"
    file.write_text(f'[apps.shop]\napp_id = "8250eaf6-1a58-489e-b136-7c74a864b434"\napi_key = "{CANARY}"\n')
    assert "canarysings" not in everything_about(load_settings(file))
