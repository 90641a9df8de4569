"""The application limit on real sockets: however many engines there are, the app is never disabled."""

import asyncio
import sys
from pathlib import Path

from sendengine import Accepted, CreateNotification, Job, Rejected, segments
from sendengine.mockserver import AppConfig, MockConfig, MockServer
from tests.support.engines import APP_ID, note
from tests.support.mocked import assert_clean, mocked

_SENDER = """
import asyncio, sys
from pathlib import Path
from sendengine import SendEngine
from tests.support.engines import make_settings, note

async def main(base_url: str, folder: str, name: str) -> None:
    app = {"base_url": base_url, "subscribed_users": "auto", "application_limit_policy": "reject"}
    accepted = 0
    async with SendEngine(make_settings(Path(folder), app=app)) as engine:
        jobs = [note(*[f"{name}-{k}-{n}" for n in range(20)], text=f"{name} {k}") for k in range(40)]
        async for _, outcome in engine.map(jobs):
            accepted += 20 * (type(outcome).__name__ == "Accepted")
    print(accepted)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_an_engine_looks_up_its_users_and_stops_below_the_limit(tmp_path: Path) -> None:
    config = MockConfig(default=AppConfig(subscribed_users=50))
    app = {"subscribed_users": "auto", "application_limit_policy": "reject"}
    async with mocked(tmp_path, config, app=app) as (engine, server):
        jobs: list[Job] = [note(*[f"u{number}" for number in range(50)], text=str(k)) for k in range(12)]
        kinds = [type(outcome) async for _, outcome in engine.map(jobs)]
        assert (kinds.count(Accepted), kinds.count(Rejected)) == (7, 5)  # 350 of 500
        everybody = CreateNotification(to=segments("All"), channel="push", message={"contents": {"en": "x"}})
        outcome = await (await engine.submit(everybody))
        assert isinstance(outcome, Rejected)
        found = server.summary()
        assert found.recipients == 350
        assert_clean(found)


def test_two_processes_at_once_and_one_after_them_never_get_the_app_disabled(tmp_path: Path) -> None:
    """In real time, which other processes live in."""

    async def send(server: MockServer, name: str) -> int:
        arguments = ["-c", _SENDER, server.base_url, str(tmp_path), name]
        root = Path(__file__).parents[2]
        child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=root
        )
        output, complaints = await child.communicate()
        assert child.returncode == 0, complaints.decode()
        return int(output)

    async def main() -> None:
        async with MockServer(MockConfig(default=AppConfig(subscribed_users=100))) as server:
            sent = sum(await asyncio.gather(send(server, "one"), send(server, "two")))
            sent += await send(server, "three")
            found = server.summary()
            assert found.recipients == sent <= 700
            assert sent >= 600  # no more is left unused than what each of them had reserved
            assert found.most_deliveries_in_window <= 700
            assert_clean(found)

    asyncio.run(main())


async def test_an_app_that_somebody_else_got_disabled_is_held_until_a_person_acts(tmp_path: Path) -> None:
    config = MockConfig(default=AppConfig(subscribed_users=10))
    async with mocked(tmp_path, config, app={"subscribed_users": 1_000_000}) as (engine, server):
        await engine.send(note(*[f"u{number}" for number in range(100)]))  # reaches ten times the users
        receipt = await engine.submit(note("a", text="later"))
        held = asyncio.Event()
        changed = engine._apps["shop"]._when_changed

        def note_the_hold(app: object) -> None:
            changed(app)  # type: ignore[arg-type]
            held.set()

        engine._apps["shop"]._when_changed = note_the_hold
        await held.wait()
        assert "dashboard" in (engine.stats().apps["shop"].held or "")
        assert engine.stats().lanes["shop/create_notification"].epochs == 0
        server.enable(APP_ID)
        engine.resume_app("shop")
        assert isinstance(await receipt, Accepted)
