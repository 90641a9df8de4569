"""What each fault makes of a reply: another status, a mangled body, or no reply at all.

Sources: the 503 of the error catalogue of OneSignal's Python SDK 5.18; Envoy's plain text and Cloudflare's 524 from
onesignal-node#82; a peer that closes without a reply from python-api#39.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from sendengine.mockserver import replies
from sendengine.mockserver.config import Fault, FaultKind
from sendengine.mockserver.protocol import Exchange
from sendengine.mockserver.replies import HTML, TEXT, Answer, coded, page, refusal

WITHOUT_REPLY: Final[frozenset[FaultKind]] = frozenset(
    {"reset_before", "reset_after", "close_before", "close_after", "refused_stream", "hang"}
)
_DELAY_S: Final[Mapping[FaultKind, float]] = {"stall": 1.0, "slow": 1.0, "hang": 600.0}
_INSTEAD: Final[Mapping[FaultKind, Answer]] = {
    "503": Answer(503, replies.UNAVAILABLE),
    "503_text": Answer(503, replies.ENVOY, content_type=TEXT),
    "503_empty": Answer(503, b"", content_type=TEXT),
    "500": refusal(500, "Internal server error"),
    "502_html": page(502),
    "524": page(524),
    "408": refusal(408, "Request timeout"),
    "403_html": page(403),
    "400": refusal(400, replies.VAGUE),
    "404": coded(404, "user-1", "User not found"),
    "409": coded(409, "user-2", "One or more aliases claimed by another user"),
}
_MANGLED: Final[Mapping[FaultKind, Mapping[str, bytes]]] = {
    "wrong_type": {"content_type": HTML},
    "garbage": {"body": b'\x00\xff{"id": "5e4de491-'},
    "empty": {"body": b""},
}
_PIECES: Final = 10  # a slow body comes in so many


def delay_of(fault: Fault) -> float:
    """Return the seconds that the fault takes beyond the latency."""
    return fault.delay_s if fault.delay_s is not None else _DELAY_S.get(fault.kind, 0.0)


def answer_to(fault: Fault, done: Answer | None, *, throttled: Answer) -> Answer:
    """Return the reply that a request gets which meets ``fault``; ``done`` is what the endpoint answered, if it did."""
    if fault.kind == "429":
        return throttled
    instead = _INSTEAD.get(fault.kind)
    if instead is not None:
        after = f"Retry-After: {fault.retry_after}\r\n".encode() if fault.retry_after else b""
        return msgspec.structs.replace(instead, headers=after)
    mangled = _MANGLED.get(fault.kind, {})
    return msgspec.structs.replace(done or Answer(503, b""), **mangled)


def leave(exchange: Exchange, answer: Answer, fault: Fault | None) -> None:
    """End an exchange: with the reply, or as the fault has it."""
    if fault is not None and fault.kind in WITHOUT_REPLY:
        _vanish(exchange, fault)
        return
    body = answer.body
    if fault is None:
        exchange.reply(answer)
    elif fault.kind == "slow":
        step = max(1, len(body) // _PIECES)
        pieces = [body[start : start + step] for start in range(0, len(body), step)]
        exchange.reply_slowly(answer, pieces=pieces, pause_s=delay_of(fault) / max(1, len(pieces)))
    elif fault.kind == "cut":
        exchange.reply_cut(answer, size=len(body) // 2)
    else:
        if fault.kind == "goaway":
            exchange.leave_after()
        exchange.reply(answer)


def _vanish(exchange: Exchange, fault: Fault) -> None:
    if fault.kind in {"reset_before", "reset_after"}:
        exchange.reset()
    elif fault.kind == "hang":
        exchange.close_later(delay_of(fault))
    elif fault.kind == "refused_stream":
        exchange.refuse()
    else:
        exchange.close()
