"""Many jobs through an engine, outcomes as they come."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from sendengine import (
    Accepted,
    AppHeldError,
    CreateNotification,
    InvalidJobError,
    Job,
    Outcome,
    Rejected,
    SendEngine,
    external_id,
)
from tests.support.engines import assert_nothing_leaked, change, lane_of, make_engine, note, pass_turns, until
from tests.support.fake_transport import FakeTransport, accept, refuse
from tests.support.virtual_loop import run_virtually


async def collect(
    engine: SendEngine,
    jobs: Iterable[Job] | AsyncIterable[Job],
    *,
    in_flight: int = 10_000,
    into: list[tuple[Job, Outcome]] | None = None,
) -> list[tuple[Job, Outcome]]:
    pairs = [] if into is None else into
    async for pair in engine.map(jobs, in_flight=in_flight):
        pairs.append(pair)
    return pairs


def test_every_job_comes_out_once_with_its_outcome(tmp_path: Path) -> None:
    transport = FakeTransport(lambda arrival: refuse() if arrival.text == "bad" else accept(arrival))
    jobs = [note("a", text="bad" if number == 7 else str(number)) for number in range(50)]

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            pairs = await collect(engine, jobs)
            assert sorted(id(job) for job, _ in pairs) == sorted(map(id, jobs))
            assert {type(outcome) for job, outcome in pairs if job is not jobs[7]} == {Accepted}
            assert [type(outcome) for job, outcome in pairs if job is jobs[7]] == [Rejected]
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_asynchronous_sources_and_both_kinds_of_jobs_serve(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def jobs() -> AsyncIterator[Job]:
        for number in range(10):
            await asyncio.sleep(0.1)
            yield note("a", text=str(number)) if number % 2 else change(f"u{number}", a=1)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            assert {type(outcome) for _, outcome in await collect(engine, jobs())} == {Accepted}

    run_virtually(main())
    assert len(transport.arrivals) == 10


def test_an_empty_source_ends_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_engine(tmp_path, FakeTransport()) as engine:
            assert await collect(engine, []) == []

    run_virtually(main())


def test_no_more_are_under_way_than_asked_for(tmp_path: Path) -> None:
    transport = FakeTransport()
    most = 0

    async def main() -> None:
        nonlocal most
        async with make_engine(tmp_path, transport) as engine:
            lane = lane_of(engine)
            async for _ in engine.map((note("a", text=str(number)) for number in range(100)), in_flight=7):
                most = max(most, lane.intake.jobs)

    run_virtually(main())
    assert most <= 7
    assert transport.most_under_way <= 7


@pytest.mark.parametrize("in_flight", [0, -1])
def test_at_least_one_must_be_under_way(tmp_path: Path, in_flight: int) -> None:
    async def main() -> None:
        async with make_engine(tmp_path, FakeTransport()) as engine:
            with pytest.raises(ValueError, match="in_flight"):
                await collect(engine, [note("a")], in_flight=in_flight)

    run_virtually(main())


def test_closing_it_early_takes_no_more_jobs_and_sends_those_that_were_admitted(tmp_path: Path) -> None:
    transport = FakeTransport()
    taken = 0

    def jobs() -> Iterator[Job]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield note("a", text=str(number))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            async with aclosing(engine.map(jobs(), in_flight=20)) as pairs:  # type: ignore[type-var]
                async for _ in pairs:
                    break
            begun = taken
            await until(lambda: not lane_of(engine).intake.jobs)
            await asyncio.sleep(5)
            assert taken == begun <= 22
            assert_nothing_leaked(engine, transport)
            assert len(transport.arrivals) in {taken, taken - 1}

    run_virtually(main())


def test_what_the_source_raises_comes_out_after_the_outcomes_of_what_was_admitted(tmp_path: Path) -> None:
    transport = FakeTransport()
    seen: list[tuple[Job, Outcome]] = []

    def jobs() -> Iterator[Job]:
        for number in range(5):
            yield note("a", text=str(number))
        raise ZeroDivisionError

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            with pytest.raises(ZeroDivisionError):
                await collect(engine, jobs(), into=seen)

    run_virtually(main())
    assert [type(outcome) for _, outcome in seen] == [Accepted] * 5


def test_a_job_that_cannot_be_made_comes_out_too(tmp_path: Path) -> None:
    seen: list[tuple[Job, Outcome]] = []

    def jobs() -> Iterator[Job]:
        yield note("a")
        yield CreateNotification(to=external_id("b"), message={"contents": {"en": "x"}})  # no channel

    async def main() -> None:
        async with make_engine(tmp_path, FakeTransport()) as engine:
            with pytest.raises(InvalidJobError, match="channel"):
                await collect(engine, jobs(), into=seen)

    run_virtually(main())
    assert len(seen) == 1


def test_what_submit_raises_comes_out_and_the_source_is_asked_for_no_more(tmp_path: Path) -> None:
    taken = 0

    def jobs() -> Iterator[Job]:
        nonlocal taken
        for number in range(10):
            taken += 1
            yield note("a", text=str(number))

    async def main() -> None:
        async with make_engine(tmp_path, FakeTransport()) as engine:
            lane_of(engine).app.hold("for a test", cause="test")
            with pytest.raises(AppHeldError):
                await collect(engine, jobs())
            engine.resume_app("shop")

    run_virtually(main())
    assert taken == 1


def test_jobs_under_one_key_come_out_once_for_each_time_they_went_in(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            jobs = [note("a", idempotency_key="k") for _ in range(5)]
            pairs = await collect(engine, jobs, in_flight=2)
            assert [outcome for _, outcome in pairs] == [Accepted(("message-1",))] * 5

    run_virtually(main())
    assert len(transport.arrivals) == 1


def test_cancelling_whoever_iterates_leaves_no_task_behind(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            before = asyncio.all_tasks()

            async def iterate() -> None:
                async with aclosing(engine.map([note("a")])) as pairs:  # type: ignore[type-var]
                    async for _ in pairs:
                        pass

            iterating = asyncio.create_task(iterate())
            await asyncio.sleep(0.1)
            iterating.cancel()
            await asyncio.gather(iterating, return_exceptions=True)
            await pass_turns()
            workers = {task for task in asyncio.all_tasks() - before if task.get_name().startswith("sendengine ")}
            assert asyncio.all_tasks() - before - workers == set()
        assert len(transport.arrivals) == 1

    run_virtually(main())
