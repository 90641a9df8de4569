"""What a worker holds while it waits."""

from pathlib import Path
from weakref import ref

from sendengine import Accepted
from sendengine.ports import Reply
from tests.support.engines import make_engine, note, pass_turns, settled
from tests.support.fake_transport import Arrival, FakeTransport, accept
from tests.support.virtual_loop import run_virtually


class Headers(dict[str, str]):
    """Headers whose end can be seen."""


def test_a_worker_does_not_hold_its_last_reply(tmp_path: Path) -> None:
    made: list[ref[Headers]] = []

    def watched(arrival: Arrival) -> Reply:
        reply = accept(arrival)
        headers = Headers(reply.headers)
        made.append(ref(headers))
        return Reply(reply.status, headers, reply.body)

    async def main() -> None:
        transport = FakeTransport(watched)
        engine = make_engine(tmp_path, transport)
        async with engine:
            for number in range(3):
                assert isinstance(await settled(await engine.submit(note(f"u-{number}", text=str(number)))), Accepted)
                await pass_turns()
                assert (len(made), made[-1]()) == (number + 1, None)

    run_virtually(main())
