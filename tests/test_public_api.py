"""What others import: every public name is there, documented and typed, and needs no package of the command line."""

import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import sendengine
from sendengine.mockserver import __all__ as mock_names

PACKAGE = Path(sendengine.__file__).parent
CLI_PACKAGES = ("click", "rich", "sendengine.cli")


@pytest.mark.parametrize("name", sendengine.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(sendengine, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert inspect.getdoc(thing), f"{name} has no docstring"
        assert thing.__module__.startswith("sendengine.")


def test_the_list_of_public_names_is_sorted_and_complete() -> None:
    names = sendengine.__all__
    assert list(names) == sorted(set(names))
    ours = {
        name
        for name, thing in vars(sendengine).items()
        if not name.startswith("_") and getattr(thing, "__module__", "").startswith("sendengine.")
    }
    assert ours <= set(names)


def test_the_names_of_the_contract_are_among_them() -> None:
    contract = {
        "SendEngine", "load_settings", "CreateNotification", "UpdateUser", "external_id", "onesignal_id", "alias",
        "subscription_id", "email", "phone_number", "segments", "filters", "Accepted", "Unreachable", "Rejected",
        "GaveUp", "Ambiguous", "Expired", "Abandoned", "SendFailedError", "IntakeFullError", "AppHeldError",
        "KeyReusedError", "InvalidJobError", "SettingsError", "EngineClosedError", "StorageError", "NotSentError",
        "ReplyLostError",
    }  # fmt: skip
    assert contract <= set(sendengine.__all__)


def public_methods(kind: type) -> list[tuple[str, object]]:
    return [
        (f"{kind.__name__}.{name}", member)
        for name, member in vars(kind).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    ]


@pytest.mark.parametrize(
    ("name", "member"),
    [
        entry
        for name in sendengine.__all__
        if inspect.isclass(kind := getattr(sendengine, name)) and not issubclass(kind, BaseException)
        for entry in public_methods(kind)
    ],
)
def test_every_public_method_is_documented_and_typed(name: str, member: object) -> None:
    function = member.fget if isinstance(member, property) else member
    assert inspect.isfunction(function)
    assert inspect.getdoc(function), f"{name} has no docstring"
    assert "return" in function.__annotations__, f"{name} does not say what it returns"
    untyped = [
        parameter.name
        for parameter in list(inspect.signature(function).parameters.values())
        if parameter.annotation is inspect.Parameter.empty and parameter.name not in {"self", "cls"}
    ]
    assert untyped == [], name
    assert "Any" not in str(function.__annotations__), f"{name} has Any in its types"


def test_the_engine_has_what_the_contract_says() -> None:
    wanted = {
        "submit", "submit_nowait", "send", "map", "stats", "health", "begin_drain", "drain", "abort", "resume_app",
        "__aenter__", "__aexit__",
    }  # fmt: skip
    assert wanted <= set(vars(sendengine.SendEngine))
    assert "timeout_s" in inspect.signature(sendengine.SendEngine.submit).parameters


def test_outcomes_have_the_fields_of_the_contract() -> None:
    fields = {
        sendengine.Accepted: ["message_ids", "shared_with", "unsubscribed", "replayed", "attempts"],
        sendengine.Rejected: ["status", "errors"],
        sendengine.GaveUp: ["last", "attempts", "maybe_sent"],
        sendengine.Ambiguous: ["evidence"],
        sendengine.Abandoned: ["maybe_sent"],
    }
    for kind, names in fields.items():
        assert list(kind.__struct_fields__)[: len(names)] == names
    for kind in set(typing.get_args(sendengine.Outcome)) - {sendengine.Accepted}:
        assert "not_sent" in kind.__struct_fields__


def test_every_exception_of_ours_has_one_root() -> None:
    errors = [thing for thing in vars(sendengine).values() if inspect.isclass(thing) and issubclass(thing, Exception)]
    assert len(errors) >= 12
    assert all(issubclass(error, sendengine.SendEngineError) for error in errors)


def test_an_outcome_can_be_matched_exhaustively() -> None:
    assert set(typing.get_args(sendengine.Outcome)) == {
        sendengine.Accepted, sendengine.Unreachable, sendengine.Rejected, sendengine.GaveUp, sendengine.Ambiguous,
        sendengine.Expired, sendengine.Abandoned,
    }  # fmt: skip


def test_the_mark_that_it_is_typed_ships() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_it_can_be_imported_without_the_packages_of_the_command_line() -> None:
    code = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {CLI_PACKAGES[:2]!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import sendengine, sendengine.mockserver, sendengine.campaign
assert not [name for name in {CLI_PACKAGES!r} if name in sys.modules]
print(sendengine.__version__)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == sendengine.__version__


def test_importing_it_starts_nothing_and_touches_no_log() -> None:
    code = """
import logging, threading, signal, sendengine
assert threading.active_count() == 1
assert not logging.getLogger().handlers
assert not any(type(handler).__name__ == "StreamHandler" for handler in logging.getLogger("sendengine").handlers)
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", mock_names)
def test_every_name_of_the_mock_server_is_there_and_documented(name: str) -> None:
    import sendengine.mockserver as mock  # noqa: PLC0415 - beside its one use

    thing = getattr(mock, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert inspect.getdoc(thing), f"{name} has no docstring"
