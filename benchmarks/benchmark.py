"""One benchmark: a frozen table of options that can be run.

Its fields are the options of its command line, with their meaning and range; its docstring is its help.
"""

import shlex
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct, ValidationError, convert

from benchmarks.report import Report

LoopKind = Literal["uvloop", "asyncio"]
AtLeastOne = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
Loop = Annotated[LoopKind, Meta(description="event loop of the contestants")]
Rounds = Annotated[int, Meta(ge=1, description="how often each contestant has its turn")]


class Benchmark(Struct, frozen=True, kw_only=True):
    """What all benchmarks are: options in their fields, and `run`."""

    async def run(self) -> Report:
        """Measure, and return what was found. Raises AssertionError where what was measured is not what was meant."""
        raise NotImplementedError

    @property
    def command(self) -> str:
        """The command line that runs it so; a benchmark is named as its module is."""
        kind = type(self)
        defaults = zip(kind.__struct_fields__, kind.__struct_defaults__, strict=True)
        given = [(name, getattr(self, name)) for name, default in defaults if getattr(self, name) != default]
        options = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in given]
        return " ".join([f"python -m benchmarks {kind.__module__.rpartition('.')[2]}", *options])


class Option(Struct, frozen=True):
    """One field of a benchmark as an option of the command line."""

    name: str
    help: str
    default: object
    choices: tuple[str, ...]


def options_of(kind: type[Benchmark]) -> list[Option]:
    """List the options of a benchmark, in the order of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    fields = zip(kind.__struct_fields__, kind.__struct_defaults__, strict=True)
    return [_option(name, hints[name], default) for name, default in fields]


def configured(kind: type[Benchmark], values: Mapping[str, str | None]) -> Benchmark:
    """Make a benchmark of the options that were given, as texts. Raises ValueError, which says what is wrong."""
    given = {name: text for name, text in values.items() if text is not None}
    try:
        benchmark = convert(given, kind, strict=False)
    except ValidationError as error:
        raise ValueError(str(error)) from None
    for name in kind.__struct_fields__:
        value = getattr(benchmark, name)
        if isinstance(value, float) and not isfinite(value):
            raise ValueError(f"--{name.replace('_', '-')}: a finite number, got {value}")
    return benchmark


def check_begin(prefix: str, names: Iterable[str]) -> None:
    """Raise ValueError, which lists the names, where none of them begins so: a benchmark of nobody says nothing."""
    names = list(dict.fromkeys(names))
    if not any(name.startswith(prefix) for name in names):
        raise ValueError(f"--only: nobody's name begins with {prefix!r}; there are {'; '.join(names)}")


def _option(name: str, hint: object, default: object) -> Option:
    about, choices = "", ()
    while get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        about = about or next((note.description for note in notes if isinstance(note, Meta) and note.description), "")
        hint = inner
    if get_origin(hint) is Literal:
        choices = get_args(hint)
    return Option(name, about, default, choices)
