"""What the documents say that a program can check: names, events, examples, and where they point."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from msgspec import Struct

import sendengine
from sendengine import mockserver
from sendengine.bench import result
from sendengine.campaign.definition import load_campaign
from sendengine.campaign.exits import Exit
from sendengine.cli.commands import cli
from sendengine.core.joblines import read_job
from sendengine.settings import load_settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def examples(language: str) -> list[str]:
    return [text for path in DOCUMENTS for found, text in BLOCK.findall(path.read_text()) if found == language]


def test_every_public_name_stands_in_the_list_of_them() -> None:
    listed = set(re.findall(r"\w+", (ROOT / "docs" / "api.md").read_text()))
    assert set(sendengine.__all__) | set(mockserver.__all__) <= listed


def test_every_event_of_the_log_is_explained() -> None:
    table = (ROOT / "docs" / "watching.md").read_text()
    announced = {
        name
        for path in (ROOT / "sendengine").rglob("*.py")
        for name in re.findall(r"\bannounce\(\s*\"(\w+)\"", path.read_text())
    }
    assert "rate_change" in announced
    assert {name for name in announced if f"`{name}`" not in table} == set()


def options(command: click.Command, path: str) -> Iterator[str]:
    """Every command with every option of it; those of the mock server have a page of their own."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from options(inner, f"{path} {name}".strip())
        return
    yield f"`{path}"
    if path != "mock":
        yield from (name for option in command.params for name in option.opts if name.startswith("--"))


def test_the_page_of_the_command_line_names_every_command_and_option() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    assert {name for name in options(cli, "") if name not in page} == set()
    assert {f"| {code.value} |" for code in Exit if f"| {code.value} |" not in page} == set()


@pytest.mark.parametrize(
    "table", [result.Result, result.Options, result.Lane, result.Cpu, result.Second, result.Latency]
)
def test_every_field_of_a_benchmarks_result_is_explained(table: type[Struct]) -> None:
    _, _, part = (ROOT / "docs" / "files.md").read_text().partition("## What a benchmark leaves")
    assert {name for name in table.__struct_fields__ if name not in part} == set()


@pytest.mark.parametrize("text", examples("python"))
def test_examples_of_python_are_python(text: str) -> None:
    compile(text, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("text", examples("toml"))
def test_examples_of_settings_and_campaigns_can_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "example.toml").write_text(text)
    if "campaign" in tomllib.loads(text):
        assert load_campaign(tmp_path / "example.toml").name
    else:
        assert load_settings(tmp_path / "example.toml", environment={}).apps


@pytest.mark.parametrize("line", [line for text in examples("") for line in text.splitlines() if '"kind"' in line])
def test_examples_of_jobs_can_be_read(line: str) -> None:
    assert read_job(line.encode())


@pytest.mark.parametrize("room", ["core", "engine", "transport", "journal", "campaign", "cli"])
def test_the_map_has_every_module_of_the_large_rooms_and_no_other(room: str) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    part = page.partition(f"### Inside `{room}/`")[2].partition("\n#")[0]
    listed = {name for line in part.splitlines() for name in re.findall(r"`([\w/.]+)`", line[1:].partition("|")[0])}
    folder = ROOT / "sendengine" / room
    modules = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if path.name != "__init__.py"}
    whole = tuple(name for name in listed if name.endswith("/"))  # folders that have one row
    assert {name for name in listed if not (folder / name).exists()} == set()
    assert {name for name in modules - listed if not name.startswith(whole)} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_point_at_documents_that_are_there(path: Path) -> None:
    named = set(
        re.findall(
            r"`(docs/[\w./-]+|config\.example\.toml|sendengine/\w[\w./]*\.py|benchmarks/\w+\.py)`", path.read_text()
        )
    )
    assert {name for name in named if not (ROOT / name).exists()} == set()
