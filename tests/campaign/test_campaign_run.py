"""Runs through the real engine, on a virtual clock, against a transport that answers as told."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine import NotSentError, ReplyLostError, SendEngine, StorageError
from sendengine.campaign import flow, run, rundir
from sendengine.campaign.jobsfile import Audience, AudienceSize
from sendengine.campaign.linefiles import LineFile
from sendengine.campaign.recorder import write_invalid
from sendengine.campaign.report import Report, parse
from sendengine.campaign.run import Progress, Run, RunOptions, RunResult
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.tables import Fault
from sendengine.campaign.work import CampaignInput, Item, Work, load_input, refuse_faults
from sendengine.errors import InputError
from sendengine.ports import Reply
from sendengine.settings import IntakeSettings, RetrySettings
from tests.campaign.campaign_files import NOON, csv_file
from tests.support.engines import make_settings
from tests.support.fake_transport import Answer, Arrival, Behaviour, FakeTransport, accept, json_reply, throttle
from tests.support.virtual_loop import run_virtually

CAMPAIGN = """
[campaign]
name = "Greeting"
channel = "push"
{options}
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
{tables}
"""
HELLO = 'message.contents.en = "Hello"'
PERSONAL = 'message.template_id = "t"'
FIRST_NAME = '[campaign.custom_data]\nname = "first"'
NOTE = '"kind":"create_notification","message":{"contents":{"en":"Hi"}},"channel":"push"'
REFUSAL = {"errors": ["something is wrong with it"]}


def greeting(folder: Path, ids: list[str], *, options: str = HELLO, tables: str = "") -> Path:
    csv_file(folder, "external_id,first", *(f"{item},Ann" for item in ids))
    path = folder / "campaign.toml"
    path.write_text(CAMPAIGN.format(options=options, tables=tables))
    return path


def levels(folder: Path, *rows: str) -> Path:
    """A campaign that sets a tag of users."""
    csv_file(folder, "external_id,level", *rows)
    path = folder / "campaign.toml"
    table = '[campaign.tags]\nlevel = "level"'
    path.write_text(CAMPAIGN.format(options="", tables=table).replace('channel = "push"', 'kind = "update_user"'))
    return path


def jobs(folder: Path, *lines: str) -> Path:
    path = folder / "jobs.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def note(*ids: str, **fields: object) -> str:
    more = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in fields.items())
    return f'{{{NOTE},"to":{{"external_id":{json.dumps(ids)}}}{more}}}'


def change(user: str, level: int) -> str:
    return f'{{"kind":"update_user","user":{{"external_id":"{user}"}},"tags":{{"level":{level}}}}}'


@dataclass
class Ended:
    """A run that is over, and what it left."""

    result: RunResult
    transport: FakeTransport
    folder: Path
    progress: Progress

    @property
    def report(self) -> Report:
        return parse((self.folder / "report.json").read_bytes())

    @property
    def counts(self) -> dict[str, int]:
        """The counts that are not zero."""
        shown = {name: getattr(self.report.jobs, name) for name in ("read", *self.report.jobs.__struct_fields__)}
        return {name: count for name, count in shown.items() if count}

    def lines(self, file: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / file).read_bytes().splitlines()]

    @property
    def sent(self) -> list[list[str]]:
        return [arrival.ids for arrival in self.transport.arrivals]


def ended(
    folder: Path,
    path: Path,
    behaviour: Behaviour = accept,
    *,
    app: dict[str, Any] | None = None,
    retry: RetrySettings | None = None,
    work: Callable[[Work], Work] = lambda work: work,
    during: Callable[[Run, FakeTransport], Any] | None = None,
    before: Callable[[Run], None] = lambda _: None,
    intake: IntakeSettings | None = None,
    latency_s: float = 0.1,
    cap: int = 2,
    now: datetime = NOON,
    **options: Any,
) -> Ended:
    """Send an input through an engine, and return what came of it; ``during`` is called every 50 ms."""
    transport = FakeTransport(behaviour, latency_s=latency_s)
    settings = make_settings(folder / "state", app=app, retry=retry, intake=intake)
    loaded = load_input(path, settings)
    run_dir = RunDir.make(folder / "runs", name=loaded.name, now=NOON)

    async def main() -> Ended:
        if isinstance(loaded, CampaignInput):
            plan = loaded.plan(settings, now=now)
            prepared = work(loaded.work(type(plan)(**{**as_dict(plan), "max_recipients": cap})))
        else:
            prepared = work(loaded.work())
        the_run = Run(prepared, run_dir=run_dir, options=RunOptions(**{"max_error_rate": 0.05, **options}))
        before(the_run)
        watcher = asyncio.get_running_loop().create_task(watch(the_run, transport))
        try:
            async with SendEngine(settings, observer=the_run, open_transport=lambda *_: transport) as engine:
                result = await the_run.send(engine)
        finally:
            watcher.cancel()
        return Ended(result, transport, run_dir.path, the_run.progress)

    async def watch(the_run: Run, transport: FakeTransport) -> None:
        while True:
            await asyncio.sleep(0.05)
            if during is not None:
                during(the_run, transport)

    return run_virtually(main())


def as_dict(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def answering(answer: Callable[[Arrival], Answer | None]) -> Behaviour:
    """Accept what ``answer`` has no answer to."""
    return lambda arrival: answer(arrival) or accept(arrival)


# All goes well


def test_a_campaign_sends_its_first_request_alone_and_then_all_others(tmp_path: Path) -> None:
    over = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(9)]))
    assert (over.result.exit_code, over.result.why) == (0, "")
    assert sorted(item for ids in over.sent for item in ids) == [f"u{n}" for n in range(9)]
    assert over.sent[0] == ["u0", "u1"]
    times = [arrival.at_s for arrival in over.transport.arrivals]
    assert times[1] > times[0] + 0.09
    assert times[-1] < times[1] + 0.09
    assert over.counts == {"read": 9, "accepted": 9}
    report = over.report
    assert (report.name, report.run, report.exit_code) == ("Greeting", over.folder.name, 0)
    assert (report.recipients.targeted, report.recipients.unsubscribed) == (9, 0)
    assert report.lanes["shop/create_notification"]["requests"] == 5
    assert report.lanes["shop/create_notification"]["replies"] == {"200": 5}
    assert over.progress.done == over.progress.total == 9


def test_each_request_has_a_line_with_its_rows(tmp_path: Path) -> None:
    over = ended(tmp_path, greeting(tmp_path, ["a", "b", "a", "NULL", "c", "d", "e"]))
    assert over.counts == {"read": 7, "accepted": 5, "invalid": 1, "duplicates": 1}
    lines = sorted(over.lines("requests.jsonl"), key=lambda line: str(line["rows"]))
    assert [(line["rows"], line["recipients"]) for line in lines] == [([[1, 2]], 2), ([[5, 6]], 2), ([[7, 7]], 1)]
    line = lines[0]
    assert line["key"] == over.transport.arrivals[0].key
    assert line.keys() == {
        "lane", "key", "message_id", "recipients", "rows", "outcome", "status", "attempts", "replayed", "cf_ray",
        "sealed_at", "first_sent_at", "settled_at",
    }  # fmt: skip
    assert (line["lane"], line["message_id"], line["outcome"], line["status"], line["attempts"]) == (
        "shop/create_notification", "message-1", "accepted", 200, 1,
    )  # fmt: skip
    assert over.lines("failures.jsonl") == over.lines("unreachable.jsonl") == []


def test_the_same_campaign_again_uses_the_same_keys(tmp_path: Path) -> None:
    path = greeting(tmp_path, ["a", "b", "c"])
    keys = [{arrival.key for arrival in ended(tmp_path, path).transport.arrivals} for _ in range(2)]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 2


def test_unsubscribed_recipients_are_counted_and_named(tmp_path: Path) -> None:
    def partly(arrival: Arrival) -> Answer:
        errors = {"invalid_aliases": {"external_id": [item for item in arrival.ids if item in {"u1", "u4"}]}}
        return json_reply(200, {"id": f"m{arrival.number}", "errors": errors})

    over = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(6)]), partly)
    assert over.counts == {"read": 6, "accepted": 6}
    assert over.report.recipients.unsubscribed == 2
    assert sorted(line.get("unsubscribed", []) for line in over.lines("requests.jsonl")) == [[], ["u1"], ["u4"]]


@pytest.mark.parametrize(("fail_on_unreachable", "exit_code"), [(False, 0), (True, 3)])
def test_a_request_that_reaches_nobody_is_told_apart(
    tmp_path: Path, *, fail_on_unreachable: bool, exit_code: int
) -> None:
    nobody = json_reply(200, {"id": "", "errors": ["All included players are not subscribed"]})
    over = ended(
        tmp_path,
        greeting(tmp_path, ["a", "b", "c"]),
        answering(lambda arrival: nobody if arrival.number == 1 else None),
        fail_on_unreachable=fail_on_unreachable,
    )
    assert over.result.exit_code == exit_code
    assert over.counts == {"read": 3, "accepted": 1, "unreachable": 2}
    (line,) = over.lines("unreachable.jsonl")
    assert line["job"]["to"] == {"external_id": ["a", "b"]}
    assert (line["outcome"], line["maybe_sent"], line["reason"]) == (
        "unreachable", False, "All included players are not subscribed",
    )  # fmt: skip


def test_user_changes_go_row_by_row(tmp_path: Path) -> None:
    over = ended(tmp_path, levels(tmp_path, "a,1", "b,", "a,2", "c,3"))
    assert over.counts == {"read": 4, "accepted": 3, "excluded": 1}
    ends = {
        arrival.path.rsplit("/", 1)[1]: arrival.body["properties"]["tags"]["level"]
        for arrival in over.transport.arrivals
    }
    assert ends == {"a": "2", "c": "3"}


def test_a_jobs_file_counts_jobs(tmp_path: Path) -> None:
    path = jobs(tmp_path, note("a", "b"), change("a", 1), note("c"), change("b", 2))
    over = ended(tmp_path, path)
    assert (over.result.exit_code, over.counts) == (0, {"read": 4, "accepted": 4})
    assert over.report.recipients.targeted == 3
    assert over.report.name == "jobs"
    assert sorted(line["rows"][0][0] for line in over.lines("requests.jsonl")) == [1, 2, 3, 4]


def test_equal_jobs_under_one_key_are_sent_once_and_both_accepted(tmp_path: Path) -> None:
    path = jobs(tmp_path, *[note("a", idempotency_key="k")] * 2, note("b", idempotency_key="k"))
    over = ended(tmp_path, path)
    assert over.sent == [["a"]]
    assert over.counts == {"read": 3, "accepted": 2, "rejected": 1}
    (line,) = over.lines("failures.jsonl")
    assert line["job"]["to"] == {"external_id": ["b"]}
    assert "was used before with another body" in line["reason"]
    assert over.result.exit_code == 3


def test_a_test_sends_to_its_ids_alone_under_keys_of_its_own(tmp_path: Path) -> None:
    path = greeting(tmp_path, ["a", "b", "c"])
    config = make_settings(tmp_path / "state")
    loaded = load_input(path, config)
    assert isinstance(loaded, CampaignInput)
    work = loaded.test_work(loaded.plan(config, now=NOON), ["c", "zoe"], run="run-1")
    over = ended(tmp_path, path, work=lambda _: work)
    assert (over.sent, over.counts) == ([["c", "zoe"]], {"read": 2, "accepted": 2})
    keys = {arrival.key for arrival in ended(tmp_path, path).transport.arrivals}
    assert over.transport.arrivals[0].key not in keys


def test_whom_an_input_goes_to_is_known_before_it_is_sent(tmp_path: Path) -> None:
    config = make_settings(tmp_path / "state")
    loaded = load_input(greeting(tmp_path, ["a", "b", "a"]), config)
    assert loaded.audiences == {Audience("shop", "create_notification", "push"): AudienceSize(jobs=2, recipients=2)}
    loaded = load_input(levels(tmp_path, "a,1"), config)
    assert loaded.audiences == {Audience("shop", "update_user", ""): AudienceSize(jobs=1)}
    loaded = load_input(jobs(tmp_path, note("a", "b")), config, name="orders")
    assert loaded.name == "orders"
    assert loaded.audiences == {Audience("shop", "create_notification", "push"): AudienceSize(jobs=1, recipients=2)}


def test_rows_that_were_left_out_are_listed(tmp_path: Path) -> None:
    run_dir = RunDir.make(tmp_path / "runs", name="x", now=NOON)
    write_invalid(run_dir, [Fault(3, "external_id", "is empty")])
    assert json.loads(run_dir.read("invalid.jsonl")) == {"line": 3, "field": "external_id", "reason": "is empty"}


# Something goes wrong


@pytest.mark.parametrize("of", ["campaign", "jobs"])
def test_a_wrong_key_costs_one_request(tmp_path: Path, of: str) -> None:
    path = greeting(tmp_path, list("abcdefgh")) if of == "campaign" else jobs(tmp_path, *(note(x) for x in "abcdefgh"))
    over = ended(tmp_path, path, lambda _: json_reply(401, {"errors": [{"code": "auth-1", "title": "no"}]}))
    assert over.result.exit_code == 4
    assert over.result.why.startswith("app 'shop' is held: OneSignal refused its API key")
    assert len(over.sent) == 1
    assert over.counts["read"] == over.counts["abandoned"]


def test_a_message_at_fault_costs_at_most_five_requests(tmp_path: Path) -> None:
    over = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(40)]), lambda _: json_reply(400, REFUSAL), cap=8)
    assert over.result.exit_code == 4
    assert "nothing of the first requests was accepted" in over.result.why
    assert len(over.sent) <= 5
    assert over.counts == {"read": 8, "rejected": 8}


def test_so_does_one_of_a_request_a_row(tmp_path: Path) -> None:
    path = greeting(tmp_path, [f"u{n}" for n in range(40)], options=PERSONAL, tables=FIRST_NAME)
    over = ended(tmp_path, path, lambda _: json_reply(400, REFUSAL))
    assert (over.result.exit_code, len(over.sent)) == (4, 5)


def test_unknown_users_at_the_head_of_a_file_do_not_stop_it(tmp_path: Path) -> None:
    missing = answering(lambda arrival: json_reply(404, REFUSAL) if arrival.path.endswith("/gone") else None)
    over = ended(tmp_path, levels(tmp_path, "gone,1", "gone,2", "a,1", "b,1"), missing)
    assert (over.result.exit_code, over.counts) == (3, {"read": 4, "accepted": 2, "rejected": 2})
    assert [line["job"]["tags"] for line in over.lines("failures.jsonl")] == [{"level": "1"}, {"level": "2"}]


def test_a_campaign_of_one_request_that_is_refused_has_finished(tmp_path: Path) -> None:
    over = ended(tmp_path, greeting(tmp_path, ["a"]), lambda _: json_reply(400, REFUSAL))
    assert (over.result.exit_code, over.result.why, over.counts) == (3, "", {"read": 1, "rejected": 1})


def test_a_poisoned_recipient_is_the_only_one_not_sent_and_the_failures_can_be_sent(tmp_path: Path) -> None:
    def poisoned(arrival: Arrival) -> Answer | None:
        return json_reply(400, REFUSAL) if "u13" in arrival.ids else None

    over = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(40)]), answering(poisoned), cap=8)
    assert over.result.exit_code == 3
    assert over.counts == {"read": 40, "accepted": 39, "rejected": 1}
    (line,) = over.lines("failures.jsonl")
    assert line["job"]["to"] == {"external_id": ["u13"]}
    assert line["job"]["app"] == "shop"
    assert (line["outcome"], line["maybe_sent"], line["reason"]) == ("rejected", False, "something is wrong with it")
    (request,) = [request for request in over.lines("requests.jsonl") if request["outcome"] == "rejected"]
    assert (request["rows"], request["recipients"], request["key"]) == ([[14, 14]], 1, line["key"])
    split = [request for request in over.lines("requests.jsonl") if request["outcome"] == "split"]
    assert split[0]["rows"] == [[9, 16]]
    again = ended(tmp_path, jobs(tmp_path, (over.folder / "failures.jsonl").read_text()))
    assert (again.sent, again.counts) == ([["u13"]], {"read": 1, "accepted": 1})


def test_the_error_budget_stops_what_mostly_fails(tmp_path: Path) -> None:
    path = greeting(tmp_path, [f"u{n}" for n in range(300)], options=PERSONAL, tables=FIRST_NAME)
    failing = answering(lambda arrival: json_reply(400, REFUSAL) if arrival.number % 3 == 0 else None)
    one_at_a_time = pytest.MonkeyPatch()
    one_at_a_time.setattr(flow, "MOST_ITEMS", 1)
    try:
        over = ended(tmp_path, path, failing)
        unjudged = ended(tmp_path, path, failing, max_error_rate=None)
    finally:
        one_at_a_time.undo()
    assert over.result.exit_code == 4
    assert over.result.why.startswith("the error budget is spent: 6 of the last 20 requests failed, and 5.0% may")
    assert over.counts == {"read": 20, "accepted": 14, "rejected": 6}
    assert (unjudged.result.exit_code, unjudged.counts) == (3, {"read": 300, "accepted": 200, "rejected": 100})


@pytest.mark.parametrize("status", [301, 400, 404])
def test_a_jobs_file_of_which_nothing_is_accepted_stops_after_twenty_of_them(tmp_path: Path, status: int) -> None:
    def page(_: Arrival) -> Answer:
        return Reply(status, {"content-type": "text/html"}, b"<html>Moved</html>")

    path = jobs(tmp_path, *(note(f"n{n}") if n % 2 else change(f"u{n}", n) for n in range(1000)))
    over = ended(tmp_path, path, page, max_error_rate=0.5)
    assert over.result.exit_code == 4
    assert over.result.why.endswith("; failures.jsonl says why")
    assert over.counts == {"read": 20, "rejected": 20}
    assert len(over.transport.arrivals) <= 20  # one after another, for nothing was accepted yet
    unjudged = ended(tmp_path, path, page, max_error_rate=1.0)
    assert (unjudged.result.exit_code, unjudged.counts["rejected"]) == (3, 1000)
    few = ended(tmp_path, jobs(tmp_path, *(change(f"u{n}", n) for n in range(20))), page, max_error_rate=0.5)
    assert (few.result.exit_code, few.result.why, few.counts) == (3, "", {"read": 20, "rejected": 20})


def test_a_jobs_file_that_begins_to_fail_is_stopped_and_what_was_accepted_before_counts(tmp_path: Path) -> None:
    path = jobs(tmp_path, *(change(f"u{n}", n) for n in range(1000)))
    failing = answering(lambda arrival: json_reply(400, REFUSAL) if arrival.number > 300 else None)
    over = ended(tmp_path, path, failing, max_error_rate=0.5)
    assert over.result.exit_code == 4
    assert over.result.why.startswith("the error budget is spent: 101 of the last 200 requests failed")
    assert over.counts["accepted"] == 300
    unjudged = ended(tmp_path, path, failing, max_error_rate=1.0)
    assert (unjudged.result.exit_code, unjudged.counts) == (3, {"read": 1000, "accepted": 300, "rejected": 700})


def test_jobs_that_share_a_request_are_one_error(tmp_path: Path) -> None:
    path = jobs(tmp_path, *(note(f"n{n}") for n in range(300)), *(change(f"u{n}", n) for n in range(30)))
    refused = answering(lambda arrival: json_reply(400, REFUSAL) if "n1" in arrival.ids else None)
    over = ended(tmp_path, path, refused, max_error_rate=0.05)
    assert over.result.exit_code == 3, over.result.why


def test_the_jobs_of_an_app_go_side_by_side_once_one_is_accepted(tmp_path: Path) -> None:
    first = answering(lambda arrival: json_reply(404, REFUSAL) if arrival.number <= 2 else None)
    over = ended(tmp_path, jobs(tmp_path, *(change(f"u{n}", n) for n in range(6))), first)
    times = [round(arrival.at_s - over.transport.arrivals[0].at_s, 1) for arrival in over.transport.arrivals]
    assert times == [0.0, 0.1, 0.2, 0.3, 0.3, 0.3]
    assert (over.result.exit_code, over.counts) == (3, {"read": 6, "accepted": 4, "rejected": 2})


def test_jobs_that_expire_do_not_wait_for_one_another(tmp_path: Path) -> None:
    path = jobs(tmp_path, *(note(f"n{n}", urgency="high", expires_in_s=5) for n in range(10)))
    looks: list[Run] = []  # one every 50 ms
    over = ended(tmp_path, path, lambda _: throttle("60"), during=lambda the_run, _: looks.append(the_run))
    assert over.counts == {"read": 10, "expired": 10}
    assert len(looks) < 15 / 0.05  # the first alone, then the others together


def test_a_pack_of_which_anything_was_accepted_is_no_error(tmp_path: Path) -> None:
    bad = {f"u{n}" for n in range(0, 400, 4)}

    def poisoned(arrival: Arrival) -> Answer | None:
        return json_reply(400, REFUSAL) if bad.intersection(arrival.ids) else None

    over = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(400)]), answering(poisoned), cap=8)
    assert over.result.exit_code == 3
    assert over.counts == {"read": 400, "accepted": 300, "rejected": 100}


def test_what_is_not_sent_by_the_deadline_is_not_sent_late(tmp_path: Path) -> None:
    path = greeting(tmp_path, ["a", "b", "c"], options=f"{HELLO}\nexpires_in_s = 10")
    held = answering(lambda arrival: throttle("20") if arrival.number == 2 else None)
    over = ended(tmp_path, path, held, now=datetime.now(UTC))
    assert (over.result.exit_code, over.counts) == (3, {"read": 3, "accepted": 2, "expired": 1})
    assert [arrival.body["ttl"] for arrival in over.transport.arrivals] == [10, 10]


def test_an_outage_that_lasts_stops_the_run_and_leaves_it_resumable(tmp_path: Path) -> None:
    over = ended(
        tmp_path,
        greeting(tmp_path, list("abcdef")),
        answering(lambda arrival: None if arrival.number == 1 else NotSentError("refused")),
        max_outage_s=60,
    )
    assert over.result.exit_code == 75
    assert over.result.why == (
        "shop/create_notification has had no answer for 60 s: refused; `sendengine doctor` looks closer"
    )
    assert over.counts == {"read": 6, "accepted": 2, "abandoned": 4}
    assert all(line["maybe_sent"] is False for line in over.lines("failures.jsonl"))


def test_an_outage_that_was_there_before_the_run_stops_it_too(tmp_path: Path) -> None:
    over = ended(
        tmp_path, greeting(tmp_path, list("abcdef")), answering(lambda _: NotSentError("refused")), max_outage_s=60
    )
    assert over.result.exit_code == 75
    assert over.result.why.startswith("shop/create_notification has had no answer for 60 s")
    assert over.counts["read"] == over.counts["abandoned"]


def test_a_disk_that_fails_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: LineFile) -> None:
        raise StorageError(f"{file.path}: No space left on device")

    def fill(_: Run, transport: FakeTransport) -> None:
        if transport.arrivals:
            monkeypatch.setattr(LineFile, "flush", full)

    monkeypatch.setattr(flow, "MOST_ITEMS", 1)
    over = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(40)]), during=fill)
    assert over.result.exit_code == 5
    assert "No space left on device" in over.result.why
    assert 0 < over.result.report.jobs.accepted < 40


@pytest.mark.parametrize(("people", "exit_code"), [(40, 75), (4, 5)])
def test_a_disk_that_fails_while_a_run_stops_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, people: int, exit_code: int
) -> None:
    def stop(the_run: Run, transport: FakeTransport) -> None:
        if len(transport.arrivals) == 2:
            the_run.stop()

    def full(path: Path, _: bytes, **__: bool) -> None:
        raise StorageError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(flow, "MOST_ITEMS", 1)
    monkeypatch.setattr(rundir, "replace_whole", full)
    result = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(people)]), during=stop).result
    assert result.exit_code == exit_code
    assert result.why.endswith("report.json: No space left on device")
    assert ("stopped before its end, as asked; " in result.why) is (exit_code == 75)


def test_an_input_that_breaks_half_way_stops_the_run(tmp_path: Path) -> None:
    def breaking(work: Work) -> Work:
        def items(first_row: int = 0) -> Iterator[Item]:
            for count, item in enumerate(work.items(first_row)):
                if count == 2:
                    raise InputError("recipients.csv: cannot be read")
                yield item

        return Work(work.name, work.is_campaign, work.rows, work.total, work.selection, items)

    over = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(8)]), work=breaking)
    assert (over.result.exit_code, over.result.why) == (75, "recipients.csv: cannot be read")
    assert over.counts["read"] == 4


def test_a_file_that_changed_after_it_was_checked_sends_nothing(tmp_path: Path) -> None:
    def changing(work: Work) -> Work:
        csv_file(tmp_path, "external_id,first", "x,X")
        return work

    with pytest.raises(InputError, match=r"recipients\.csv: has changed since it was checked"):
        ended(tmp_path, greeting(tmp_path, ["a", "b"]), work=changing)


def cut_short(path: Path) -> None:
    os.truncate(path, 200_000)


def written_over(path: Path) -> None:
    """With people who stand elsewhere in it, and have been reached already."""
    with path.open("r+b") as file:
        head = file.read(100_000)
        file.seek(-100_000, os.SEEK_END)
        file.write(head)


def appended_to(path: Path) -> None:
    last = path.read_bytes().splitlines(keepends=True)[-1]
    with path.open("ab") as file:
        file.write(last)


@pytest.mark.parametrize("happen", [cut_short, written_over, appended_to])
@pytest.mark.parametrize("of", ["campaign", "jobs"])
def test_a_file_that_changes_while_it_is_read_stops_the_run_before_anything_of_the_change_is_sent(
    tmp_path: Path, of: str, happen: Callable[[Path], None]
) -> None:
    ids = [f"u{n:0100}" for n in range(3000)]  # several blocks
    path = greeting(tmp_path, ids) if of == "campaign" else jobs(tmp_path, *(note(item) for item in ids))
    changing = path if of == "jobs" else tmp_path / "recipients.csv"
    reached: list[str] = []

    def after_the_first(work: Work) -> Work:
        def items(first_row: int = 0) -> Iterator[Item]:
            for count, item in enumerate(work.items(first_row)):
                if count == 1:
                    happen(changing)
                yield item

        return Work(work.name, work.is_campaign, work.rows, work.total, work.selection, items)

    def behave(arrival: Arrival) -> Answer:
        reached.extend(arrival.ids)
        return accept(arrival)

    over = ended(tmp_path, path, behave, work=after_the_first)
    assert over.result.exit_code == 75
    assert "has changed since it was checked" in over.result.why
    assert 0 < len(reached) < 3000
    assert reached == ids[: len(reached)]


def test_another_file_that_takes_the_name_makes_no_difference_to_a_run_that_reads(tmp_path: Path) -> None:
    ids = [f"u{n:0100}" for n in range(3000)]

    def after_the_first(work: Work) -> Work:
        def items(first_row: int = 0) -> Iterator[Item]:
            for count, item in enumerate(work.items(first_row)):
                if count == 1:
                    csv_file(tmp_path, "external_id", "stranger", name="other.csv").replace(tmp_path / "recipients.csv")
                yield item

        return Work(work.name, work.is_campaign, work.rows, work.total, work.selection, items)

    over = ended(tmp_path, greeting(tmp_path, ids), work=after_the_first)
    assert (over.result.exit_code, over.counts["accepted"]) == (0, 3000)


FAULTS: list[Answer | None] = [
    *[None] * 6,
    throttle("1"),
    json_reply(503, {"errors": ["Service temporarily unavailable"]}),
    NotSentError("refused"),
    ReplyLostError("reset"),
]


@settings(max_examples=15, deadline=None)
@given(
    ids=st.lists(st.sampled_from([*(f"u{n}" for n in range(30)), "NULL"]), max_size=60),
    answers=st.lists(st.sampled_from(FAULTS), max_size=30),
    dedupe=st.booleans(),
)
def test_whatever_the_server_does_everybody_is_reached_and_every_row_is_counted(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], answers: list[Answer | None], *, dedupe: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    effects: dict[str, list[str]] = {}

    def fallible(arrival: Arrival) -> Answer:
        answer = answers[arrival.number - 1] if arrival.number <= len(answers) else None
        if answer is None or isinstance(answer, ReplyLostError):
            effects[arrival.key] = arrival.ids
        return answer or accept(arrival)

    path = greeting(folder, ids, options=f"{HELLO}\ndedupe = {str(dedupe).lower()}")
    over = ended(folder, path, fallible, retry=RetrySettings(lost_reply_wait_s=1), cap=4)
    wanted = Counter(item for item in ids if item != "NULL")
    wanted = Counter(set(wanted)) if dedupe else wanted
    assert Counter(item for reached in effects.values() for item in reached) == wanted
    jobs_report = over.report.jobs
    assert (over.result.exit_code, jobs_report.read, jobs_report.accepted) == (0, len(ids), wanted.total())
    assert jobs_report.invalid == ids.count("NULL")


def test_invalid_jobs_are_left_out_and_counted(tmp_path: Path) -> None:
    over = ended(tmp_path, jobs(tmp_path, "x", note("a"), '{"kind":"x"}', note("b"), "y"))
    assert (over.result.exit_code, over.counts) == (0, {"read": 5, "accepted": 2, "invalid": 3})
    assert sorted(line["rows"] for line in over.lines("requests.jsonl")) == [[[2, 2]], [[4, 4]]]


def test_what_may_have_been_sent_is_said_to(tmp_path: Path) -> None:
    lost = answering(lambda arrival: ReplyLostError("reset") if arrival.body.get("deltas") else None)
    line = '{"kind":"update_user","user":{"external_id":"u"},"deltas":{"session_count":1}}'
    over = ended(tmp_path, jobs(tmp_path, line, change("v", 1)), lost)
    assert (over.result.exit_code, over.counts) == (3, {"read": 2, "accepted": 1, "ambiguous": 1})
    (failure,) = over.lines("failures.jsonl")
    assert failure["maybe_sent"] is True
    assert failure["job"] == json.loads(line)
    settings = make_settings(tmp_path / "state")
    again = load_input(jobs(tmp_path, (over.folder / "failures.jsonl").read_text()), settings)
    assert "may have been sent" in str(again.survey.faults[0])


@pytest.mark.parametrize("is_refused", [True, False])
def test_deltas_that_may_have_been_counted_stand_in_no_line_of_what_was_not_sent(
    tmp_path: Path, *, is_refused: bool
) -> None:
    def behave(arrival: Arrival) -> Answer | None:
        if arrival.body.get("deltas"):
            return ReplyLostError("reset")
        return json_reply(400, REFUSAL) if is_refused else None

    line = '{"kind":"update_user","user":{"external_id":"u"},"tags":{"level":"5"},"deltas":{"session_count":1}}'
    over = ended(tmp_path, jobs(tmp_path, line), answering(behave))
    failures = [(each["outcome"], each["maybe_sent"], each["job"]) for each in over.lines("failures.jsonl")]
    job = json.loads(line)
    expected = [("ambiguous", True, job)]
    if is_refused:
        expected.append(("rejected", False, {name: job[name] for name in ("kind", "user", "tags")}))
    assert failures == expected


# It is stopped


def test_a_stop_lets_the_wire_finish_and_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MOST_ITEMS", 3)

    def stop(the_run: Run, transport: FakeTransport) -> None:
        if len(transport.arrivals) == 4:
            the_run.stop()

    over = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(40)]), during=stop, latency_s=1.0)
    assert (over.result.exit_code, over.result.why) == (75, "stopped before its end, as asked")
    assert over.counts == {"read": 8, "accepted": 8}
    assert over.report.exit_code == 75


def test_what_waits_when_a_run_is_stopped_is_abandoned_and_was_not_sent(tmp_path: Path) -> None:
    def stop(the_run: Run, transport: FakeTransport) -> None:
        if len(transport.arrivals) > 20:
            the_run.stop()

    over = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(2000)]), during=stop, app={"plan": "free"})
    assert over.result.exit_code == 75
    assert over.counts["accepted"] == 2 * len(over.sent) < 2000
    assert over.counts["read"] == over.counts["accepted"] + over.counts["abandoned"]
    assert all(line["maybe_sent"] is False for line in over.lines("failures.jsonl"))


def test_a_stop_reaches_a_run_that_waits_for_room_in_the_engine(tmp_path: Path) -> None:
    def stop(the_run: Run, transport: FakeTransport) -> None:
        if len(transport.arrivals) >= 3:
            the_run.stop()

    path = greeting(tmp_path, [f"u{n}" for n in range(40)])
    over = ended(tmp_path, path, during=stop, latency_s=1.0, intake=IntakeSettings(max_jobs=4))
    assert over.result.exit_code == 75
    assert over.counts["read"] == over.counts["accepted"] + over.counts.get("abandoned", 0) < 40


def test_a_run_that_was_stopped_before_it_began_sends_nothing(tmp_path: Path) -> None:
    def stopped(the_run: Run) -> None:
        the_run.stop()

    over = ended(tmp_path, greeting(tmp_path, ["a", "b", "c"]), before=stopped)
    assert (over.result.exit_code, over.sent, over.counts) == (75, [], {})


def test_an_abort_gives_up_the_wire(tmp_path: Path) -> None:
    def abort(the_run: Run, transport: FakeTransport) -> None:
        if len(transport.arrivals) == 4:
            the_run.stop()
            the_run.abort()

    over = ended(tmp_path, greeting(tmp_path, [f"u{n}" for n in range(8)]), during=abort, latency_s=50.0)
    assert (over.result.exit_code, over.result.why) == (130, "aborted, as asked")
    assert over.counts == {"read": 8, "accepted": 2, "abandoned": 6}
    assert [line["maybe_sent"] for line in over.lines("failures.jsonl")] == [True] * 3


def test_a_stop_that_comes_when_all_is_sent_changes_nothing(tmp_path: Path) -> None:
    def stop(the_run: Run, transport: FakeTransport) -> None:
        if len(transport.arrivals) == 2:
            the_run.stop()

    over = ended(tmp_path, greeting(tmp_path, ["a", "b", "c"]), during=stop)
    assert (over.result.exit_code, over.result.why, over.counts) == (0, "", {"read": 3, "accepted": 3})


def test_cancelling_a_run_leaves_no_task_behind(tmp_path: Path) -> None:
    path = greeting(tmp_path, [f"u{n}" for n in range(8)])
    settings = make_settings(tmp_path / "state")
    loaded = load_input(path, settings)
    assert isinstance(loaded, CampaignInput)
    transport = FakeTransport(latency_s=30)

    async def main() -> int:
        the_run = Run(
            loaded.work(loaded.plan(settings, now=NOON)),
            run_dir=RunDir.make(tmp_path / "runs", name="x", now=NOON),
            options=RunOptions(max_error_rate=None),
        )
        async with SendEngine(settings, observer=the_run, open_transport=lambda *_: transport) as engine:
            sending = asyncio.get_running_loop().create_task(the_run.send(engine))
            await asyncio.sleep(1)
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
            await engine.abort(grace_s=0)
        return len(asyncio.all_tasks())

    assert run_virtually(main()) == 1


# What is under way is bounded, and what cannot be sent is refused


def test_as_much_is_under_way_as_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The body of two such ids and of the greeting is 147 bytes long, and with three of them under way there is no room.
    monkeypatch.setattr(flow, "MOST_BYTES", 3 * 147)
    most: list[int] = []
    over = ended(
        tmp_path,
        greeting(tmp_path, [f"u{n}" for n in range(10, 70)]),
        during=lambda _, transport: most.append(transport.under_way),
    )
    assert over.counts == {"read": 60, "accepted": 60}
    assert max(most) == 3


def test_the_first_job_of_an_app_holds_the_others_up_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "FIRST_WAIT_S", 2.0)
    over = ended(tmp_path, jobs(tmp_path, *(note(x, urgency="high") for x in "abc")), latency_s=5.0)
    times = [round(arrival.at_s - over.transport.arrivals[0].at_s, 1) for arrival in over.transport.arrivals]
    assert times == [0.0, 2.0, 2.0]


def test_invalid_rows_are_refused_unless_they_are_to_be_left_out(tmp_path: Path) -> None:
    loaded = load_input(greeting(tmp_path, ["a", "NULL"]), make_settings(tmp_path / "state"))
    with pytest.raises(
        InputError, match=r"recipients\.csv: 1 of 2 rows cannot be sent, and nothing was sent"
    ) as caught:
        refuse_faults(loaded, skip_invalid=False)
    assert caught.value.faults == ("line 3: external_id: 'NULL' is a placeholder, which OneSignal refuses",)
    refuse_faults(loaded, skip_invalid=True)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("input.csv", "an input is a campaign"),
        ("missing.toml", "there is no such file"),
        ("missing.jsonl.gz", "there is no such file"),
    ],
)
def test_an_input_that_is_none_is_explained(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        load_input(tmp_path / name, make_settings(tmp_path / "state"))
    assert told in str(caught.value)


def test_an_app_that_is_not_configured_is_named(tmp_path: Path) -> None:
    path = greeting(tmp_path, ["a"], options=f'{HELLO}\napp = "shopp"')
    with pytest.raises(InputError, match=r"campaign\.app: 'shopp' is not configured; did you mean 'shop'"):
        load_input(path, make_settings(tmp_path / "state"))
