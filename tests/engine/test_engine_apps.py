"""Several apps in one engine, the fence of a staging app, and going below the ceilings."""

import asyncio
from pathlib import Path

import pytest

from sendengine import (
    Accepted,
    AppSettings,
    CreateNotification,
    InvalidJobError,
    Job,
    SendEngine,
    UpdateUser,
    alias,
    email,
    external_id,
    filters,
    segments,
)
from sendengine.settings import CeilingSettings
from tests.support.engines import (
    APP_ID,
    CREATE,
    UPDATE,
    change,
    make_engine,
    make_settings,
    note,
    now_s,
    outcomes_of,
    settled,
)
from tests.support.fake_transport import FakeTransport, json_reply
from tests.support.virtual_loop import run_virtually

NEWS_ID = "0f6b0aa6-3b3a-4b5a-9b0a-0d4f3f1f7a11"
NEWS = {"news": {"app_id": NEWS_ID}}
TEXT = {"contents": {"en": "x"}}
NO_KEY = json_reply(401, {"errors": [{"code": "auth-1", "title": "This operation requires 'Authorization'"}]})


def two_apps(folder: Path, shop: FakeTransport, news: FakeTransport) -> SendEngine:
    def open_transport(app: AppSettings, _: str) -> FakeTransport:
        return shop if app.app_id == APP_ID else news

    return SendEngine(make_settings(folder, others=NEWS), open_transport=open_transport)


def test_each_apps_jobs_go_to_that_app(tmp_path: Path) -> None:
    shop, news = FakeTransport(), FakeTransport()

    async def main() -> None:
        async with two_apps(tmp_path, shop, news) as engine:
            jobs: list[Job] = [
                note("a", app="shop"),
                note("b", app="news"),
                UpdateUser(external_id("u"), tags={"a": 1}, app="news"),
            ]
            assert {type(outcome) for outcome in await outcomes_of(engine, jobs)} == {Accepted}
            assert set(engine.counters()) == {
                "shop/create_notification",
                "news/create_notification",
                "news/update_user",
            }
            assert set(engine.stats().apps) == {"shop", "news"}

    run_virtually(main())
    assert [arrival.body["app_id"] for arrival in shop.arrivals] == [APP_ID]
    assert sorted(arrival.method for arrival in news.arrivals) == ["PATCH", "POST"]
    assert all(NEWS_ID in arrival.path or arrival.body["app_id"] == NEWS_ID for arrival in news.arrivals)
    assert shop.is_closed
    assert news.is_closed


def test_a_held_app_stops_only_itself(tmp_path: Path) -> None:
    shop, news = FakeTransport(lambda _: NO_KEY), FakeTransport()

    async def main() -> None:
        async with two_apps(tmp_path, shop, news) as engine:
            stuck = await engine.submit(note("a", app="shop"))
            await asyncio.sleep(1)
            for number in range(50):
                assert isinstance(await engine.send(note("b", text=str(number), app="news")), Accepted)
            stats = engine.stats()
            assert stats.apps["shop"].held is not None
            assert stats.apps["news"].held is None
            assert stats.lanes["shop/update_user"].hold is not None
            assert not stuck.is_settled

    run_virtually(main())


def test_an_app_must_be_named_where_there_are_several_and_be_one_of_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with two_apps(tmp_path, FakeTransport(), FakeTransport()) as engine:
            with pytest.raises(InvalidJobError, match=r"app: missing.*shop, news") as missing:
                await engine.submit(note("a"))
            assert missing.value.field == "app"
            with pytest.raises(InvalidJobError, match=r"'shoe' is not configured.*shop, news"):
                engine.submit_nowait(note("a", app="shoe"))

    run_virtually(main())


def test_the_only_app_need_not_be_named(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await outcomes_of(engine, [note("a"), note("b", app="shop")])
            with pytest.raises(InvalidJobError, match="'shoe'"):
                await engine.submit(note("a", app="shoe"))

    run_virtually(main())


@pytest.mark.parametrize(
    ("job", "gets_through"),
    [
        (note("qa-1"), True),
        (note("qa-1", "qa-2"), True),
        (note("qa-1", "customer"), False),
        (CreateNotification(to=alias("crm", "qa-1"), channel="push", message=TEXT), False),
        (CreateNotification(to=email("qa@example.org"), message=TEXT), True),
        (CreateNotification(to=email("somebody@example.org"), message=TEXT), False),
        (CreateNotification(to=segments("qa-1"), message=TEXT), False),
        (CreateNotification(to=filters([{"field": "country", "value": "DE"}]), message=TEXT), False),
        (change("qa-1", a=1), True),
        (change("customer", a=1), False),
    ],
)
def test_a_fenced_app_reaches_those_who_are_named_and_nobody_else(
    tmp_path: Path, job: Job, *, gets_through: bool
) -> None:
    transport = FakeTransport()
    fence = ["external_id:qa-1", "external_id:qa-2", "email:qa@example.org"]

    async def main() -> None:
        async with make_engine(tmp_path, transport, app={"only_to": fence}) as engine:
            if gets_through:
                assert isinstance(await settled(await engine.submit(job)), Accepted)
                return
            with pytest.raises(InvalidJobError, match="only_to"):
                await engine.submit(job)
            with pytest.raises(InvalidJobError, match="only_to"):
                engine.submit_nowait(job)

    run_virtually(main())
    assert len(transport.arrivals) == gets_through


@pytest.mark.parametrize(
    ("app", "create", "update"),
    [
        ({}, 6000, 1000),
        ({"plan": "free"}, 150, 1000),
        ({"share": 0.5}, 3000, 500),
        ({"ceilings": CeilingSettings(create_notification=100), "share": 0.5}, 50, 500),
        ({"ceilings": CeilingSettings(update_user=2000)}, 6000, 2000),
    ],
)
def test_ceilings_are_the_documented_or_granted_ones_times_the_share(
    tmp_path: Path, app: dict[str, object], create: float, update: float
) -> None:
    async def main() -> None:
        async with make_engine(tmp_path, FakeTransport(), app=app) as engine:
            lanes = engine.stats().lanes
            assert (lanes[CREATE].ceiling, lanes[UPDATE].ceiling) == (create, update)

    run_virtually(main())


@pytest.mark.parametrize(("share", "ceiling"), [(1.0, 150), (0.6, 90)])
def test_no_second_has_more_than_the_share_of_the_ceiling_and_nearly_all_of_it_is_used(
    tmp_path: Path, share: float, ceiling: int
) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app={"plan": "free", "share": share}) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(10 * ceiling)]
            begin_s = now_s()
            for receipt in receipts:
                await settled(receipt)
            assert 10 <= now_s() - begin_s <= 10.5
            assert engine.stats().lanes[CREATE].most_in_one_second == transport.most_in_one_second

    run_virtually(main())
    assert 0.95 * ceiling <= transport.most_in_one_second <= ceiling


def test_lanes_do_not_slow_one_another(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        app = {"ceilings": CeilingSettings(create_notification=50, update_user=50)}
        async with make_engine(tmp_path, transport, app=app) as engine:
            begin_s = now_s()
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(250)]
            receipts += [await engine.submit(change(f"u{number}", a=1)) for number in range(250)]
            for receipt in receipts:
                await settled(receipt)
            assert now_s() - begin_s <= 5.8  # five seconds each, at the same time

    run_virtually(main())
