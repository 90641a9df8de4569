"""What a reply complains of: its errors as short texts, where it puts the fault, and whom it names.

OneSignal's ``errors`` are a list of strings, a list of objects, an object, a string or nothing, and whatever stands
between us and OneSignal answers in HTML or plain text. None of it may raise, none may flood a log or a terminal, and
no key that a reply quotes may be shown.

Method: a table of patterns. An id counts as named where it stands quoted, in brackets, or alone in an error; bare in
a sentence only where it looks like an id and no field of the message is named. A good recipient who is taken for a
bad one is not sent, and one who is overlooked costs a few requests, so doubt says UNNAMED.

Source: the replies that create message and update user document, and those quoted in issues of OneSignal's SDKs.
"""

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from itertools import islice
from typing import Final

import orjson

from sendengine.core.jobs import Json
from sendengine.core.requests import Request, UserRequest
from sendengine.core.verdicts import Fault

ERRORS_KEPT: Final = 20
ERROR_CHARACTERS: Final = 500
_SAID_CHARACTERS: Final = 20_000  # as much of a reply as patterns look at: all of a real one, a blink of a hostile one

_KEYS: Final = (
    (re.compile(r"\bos_v2_([a-z]{1,8})_\w+"), r"os_v2_\1_…"),
    (re.compile(r"\b(authorization['\"]?\s?[:=]\s?['\"]?(?:key|basic|bearer)\s)[^\s'\",}]+", re.IGNORECASE), r"\1…"),
    (re.compile(r"\b((?:key|basic|bearer)\s)[\w+/=-]{20,}", re.IGNORECASE), r"\1…"),
)
_TITLE: Final = re.compile(r"<title[^<>]*>([^<]+)", re.IGNORECASE)
_TAG: Final = re.compile(r"<[^<>]*>")

_QUOTED: Final = re.compile(r"\"([^\"]+)\"|'([^']+)'|`([^`]+)`|“([^“”]+)”")
_LISTED: Final = re.compile(r"\[([^\[\]]*)\]")
_WORD: Final = re.compile(r"[^\s,;:()\[\]{}<>\"'`“”]+")
_LIKE_AN_ID: Final = re.compile(r"(?=.*\d)(?=.*[^\d.,%]).{3,}|\d{6,}|.+@.+")

_MESSAGE_FIELD: Final = re.compile(
    r"\bapp[_ ]?id\b|\bapp\b.{0,40}\b(?:not found|invalid|missing|not exist)|language content|\bcontents\b"
    r"|\bcontent_available\b|\bheadings\b|\bsubtitle\b|\btemplate(?:_id|s)?\b|\bsegments?\b|\bfilters\b|\bchannels?\b"
    r"|\btarget_channel\b|\bplatforms?\b|\bttl\b|\bpriority\b|\bcollapse_id\b|\bsend_after\b|\bdelayed_option\b"
    r"|\bdelivery_time|\bthrottl|\bdata must\b|\bbytes long\b|\bbody too large\b|\bpayload\b|\bcustom_data\b"
    r"|\bidempotency_key\b|\bbuttons\b|\bemail_(?:subject|body|from|preheader|bcc)|\bsms_(?:from|media)"
    r"|(?m:^name\b)|\bmethod of targeting\b|\b(?:unknown|unpermitted|unsupported) (?:field|parameter)"
    r"|\bjson\b|\bcontent-type\b|\bliquid\b|\bplan\b",
    re.IGNORECASE,
)
_MESSAGE_STATUSES: Final = frozenset({402, 404, 405, 406, 410, 411, 414, 415, 417, 426, 431})
"""What a create-notification request can only meet for every recipient alike."""
_TAG_CAP: Final = re.compile(
    r"\btags?\b.{0,60}\b(?:limit|maximum|exceed|quota|too many)|\bentitlement"
    r"|\b(?:limited|maximum|exceed\w*|too many)\b.{0,60}\btags?\b",
    re.IGNORECASE,
)
_PER_REQUEST: Final = re.compile(r"per request", re.IGNORECASE)


def complaint(document: Json) -> Json:
    """Return the part of a JSON reply that says what is wrong; all of it where no part is named so."""
    if isinstance(document, dict):
        for name in ("errors", "error", "message"):
            if name in document:
                part: Json = document[name]
                return part
    return document


def shown(part: Json) -> tuple[str, ...]:
    """Render a complaint as at most `ERRORS_KEPT` texts of at most `ERROR_CHARACTERS`, keys masked."""
    if isinstance(part, dict):
        texts = [f"{name}: {_compact(value)}" for name, value in islice(part.items(), ERRORS_KEPT)]
    elif isinstance(part, list):
        texts = [_entry(item) for item in islice(part, ERRORS_KEPT)]
    else:
        texts = [_compact(part)] if part else []
    return shortened(texts)


def shortened(texts: Iterable[str]) -> tuple[str, ...]:
    """Shorten every text, and leave out those in which nothing can be seen."""
    return tuple(error for text in texts if (error := short(text)))


def short(text: str) -> str:
    """Bound a text, mask what looks like a key, and leave nothing in it that moves a terminal's cursor."""
    cut = text[: 2 * ERROR_CHARACTERS]
    for pattern, mask in _KEYS:
        cut = pattern.sub(mask, cut)
    plain = "".join(character if character.isprintable() else " " for character in cut).strip()
    return plain if len(plain) <= ERROR_CHARACTERS else plain[: ERROR_CHARACTERS - 1] + "…"


def page_text(text: str) -> str:
    """Return what a page of HTML or plain text says: its title, or its words."""
    title = _TITLE.search(text)
    return " ".join((title[1] if title else _TAG.sub(" ", text[: 8 * ERROR_CHARACTERS])).split())


def leaves(value: Json) -> Iterator[str]:
    """Yield every text and whole number within a JSON value, in its order."""
    waiting = [value]
    while waiting:  # not recursive: a reply may be nested a thousand deep
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting.extend(reversed(item.values()))
        elif isinstance(item, list):
            waiting.extend(reversed(item))
        elif isinstance(item, int) and not isinstance(item, bool):
            yield str(item)


def said_by(texts: tuple[str, ...]) -> str:
    """Join what a complaint says for patterns to look at."""
    return "\n".join(texts)[:_SAID_CHARACTERS]


def fault_of(request: Request, *, status: int, texts: tuple[str, ...]) -> tuple[Fault, tuple[str, ...]]:
    """Say where a definite refusal puts the fault, and which of the request's recipients it names."""
    if isinstance(request, UserRequest):
        return _fault_of_change(request, status=status, said=said_by(texts)), ()
    if status in _MESSAGE_STATUSES:
        return Fault.MESSAGE, ()
    ids = request.target.ids if request.target.is_listed else ()
    if named := _among(ids, _marked(texts)):
        return Fault.RECIPIENTS, named
    said = said_by(texts)
    if _MESSAGE_FIELD.search(said):
        return Fault.MESSAGE, ()
    named = _among(ids, (word for word in _words(said) if _LIKE_AN_ID.fullmatch(word)))
    return (Fault.RECIPIENTS, named) if named else (Fault.UNNAMED, ())


def _fault_of_change(request: UserRequest, *, status: int, said: str) -> Fault:
    if status == HTTPStatus.NOT_FOUND:
        return Fault.MISSING_USER
    is_cap = request.tags and _TAG_CAP.search(said) and not _PER_REQUEST.search(said)
    return Fault.TAG_CAP if is_cap else Fault.UNNAMED


def _marked(texts: tuple[str, ...]) -> Iterator[str]:
    """Yield what stands alone, quoted or in brackets."""
    for text in texts:
        yield text
        for match in _QUOTED.finditer(text):
            yield match[match.lastindex or 0]
        for match in _LISTED.finditer(text):
            for item in match[1].split(","):
                yield item.strip(" \t\n\"'`“”")


def _words(text: str) -> Iterator[str]:
    for match in _WORD.finditer(text):
        yield match[0].rstrip(".!?")


def _among(ids: tuple[str, ...], candidates: Iterable[str]) -> tuple[str, ...]:
    """Return those ids that a candidate names, each once; in another case where none is named as it is written."""
    found = set(candidates)
    if not found or not ids:
        return ()
    if exact := tuple(item for item in ids if item in found):
        return exact
    folded = {item.casefold() for item in found}
    return tuple(item for item in ids if item.casefold() in folded)


def _entry(item: Json) -> str:
    """Render one of several errors: a text, or an object with code, title and more."""
    if not isinstance(item, dict):
        return _compact(item)
    head = [str(item[name]) for name in ("code", "title", "detail") if isinstance(item.get(name), (str, int))]
    rest = {name: value for name, value in item.items() if name not in {"code", "title", "detail"}}
    return " ".join((": ".join(head), _compact(rest))).strip() if head and rest else ": ".join(head) or _compact(item)


def _compact(value: Json) -> str:
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes
        return "(nested too deeply to show)"
