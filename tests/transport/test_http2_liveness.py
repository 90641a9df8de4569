"""When a connection is asked whether anybody is there, and when it is given up."""

from sendengine.transport.direct.http2.control import Control
from sendengine.transport.direct.http2.frames import ACK, PING, frame
from sendengine.transport.direct.http2.liveness import IDLE_PING_S, PONG_S, SILENT_S, Liveness
from sendengine.transport.direct.http2.sending import Sender

PATIENCE_S = 7.0


def begun(*, lifetime_s: float = 300.0) -> tuple[Liveness, Control]:
    control = Control(Sender())
    liveness = Liveness(control, control._sender, patience_s=PATIENCE_S)
    liveness.begin(1000.0, lifetime_s=lifetime_s)
    return liveness, control


def test_a_silent_connection_is_asked_sooner_while_replies_are_awaited() -> None:
    liveness, _ = begun()
    for at_s, is_busy, must_ask in [
        (1000.0, True, False),
        (1000.0 + SILENT_S - 0.1, True, False),
        (1000.0 + SILENT_S, True, True),
        (1000.0 + SILENT_S, False, False),
        (1000.0 + IDLE_PING_S, False, True),
    ]:
        assert liveness.must_ask(at_s, is_busy=is_busy) is must_ask, f"at {at_s}, busy: {is_busy}"
    liveness.heard_s = 1000.0 + IDLE_PING_S
    assert not liveness.must_ask(1000.0 + IDLE_PING_S, is_busy=False), "something came"


def test_who_does_not_answer_in_time_is_dead_and_is_asked_only_once() -> None:
    liveness, control = begun()
    asked = liveness.ping(1020.0)
    assert asked == frame(PING, payload=b"\0\0\0\0\0\0\0\1")
    assert liveness.is_asking
    assert not liveness.must_ask(1050.0, is_busy=True)
    assert [liveness.is_dead(1020.0 + PONG_S - 0.1), liveness.is_dead(1020.0 + PONG_S)] == [False, True]
    liveness.heard_s = 1029.0
    assert liveness.is_dead(1020.0 + PONG_S), "other bytes are no answer"
    control.ping(ACK, 0, b"\0\0\0\0\0\0\0\1")
    assert (liveness.is_asking, liveness.is_dead(1050.0)) == (False, False)
    assert liveness.ping(1060.0) != asked, "an old answer is none to a new question"


def test_somebody_looks_again_when_something_may_be_due() -> None:
    liveness, _ = begun(lifetime_s=150.0)
    assert liveness.due_s(1001.0, is_busy=True) == 1000.0 + SILENT_S
    assert liveness.due_s(1001.0, is_busy=False) == 1000.0 + IDLE_PING_S
    assert liveness.due_s(1100.0, is_busy=False) == 1100.0, "at once, and not in the past"
    liveness.ping(1100.0)
    assert liveness.due_s(1101.0, is_busy=False) == 1100.0 + PONG_S
    liveness.heard_s = 1149.0
    assert liveness.due_s(1149.0, is_busy=False) == 1100.0 + PONG_S
    assert liveness.until_s == 1150.0
    liveness, _ = begun(lifetime_s=3.0)
    assert liveness.due_s(1001.0, is_busy=True) == 1003.0


def test_a_connection_without_streams_is_useless_after_a_while_unless_some_are_allowed_again() -> None:
    liveness, _ = begun()
    assert not liveness.is_useless(1000.0 + 10 * PATIENCE_S)
    liveness.bar(1001.0, is_barred=True)
    assert liveness.due_s(1001.0, is_busy=False) == 1001.0 + PATIENCE_S
    assert [liveness.is_useless(1001.0 + PATIENCE_S + more_s) for more_s in (-0.1, 0.0)] == [False, True]
    liveness.bar(1002.0, is_barred=False)
    assert not liveness.is_useless(1002.0 + PATIENCE_S)
    assert liveness.due_s(1002.0, is_busy=False) == 1000.0 + IDLE_PING_S
