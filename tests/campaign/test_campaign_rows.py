"""The readers of recipients: every row of every file, whatever its line ends, quotes and blocks."""

import csv
import gzip
import io
import json
import os
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.campaign import blocks, csvrows
from sendengine.campaign.blocks import Digest, file_digest, file_stamp
from sendengine.campaign.recipients import read_recipients
from sendengine.campaign.tables import Fault, Reading
from sendengine.core.jobs import Json
from sendengine.errors import InputError
from tests.campaign.campaign_files import csv_file

ROW = '{"external_id": "u1"}\n'


def read(path: Path, column: str = "external_id", *others: str) -> list[tuple[Json, ...]]:
    """All rows, the faulty ones left out."""
    rows: list[tuple[Json, ...]] = []
    for chunk in read_recipients(Reading(path, column, others=others)):
        columns = [chunk.ids, *(chunk.cells[name] for name in others)]
        rows += [row for index, row in enumerate(zip(*columns, strict=True)) if index not in chunk.faults]
    return rows


def faults(path: Path, column: str = "external_id", *others: str) -> list[Fault]:
    return [fault for chunk in read_recipients(Reading(path, column, others=others)) for fault in chunk.faults.values()]


def ids(path: Path, column: str = "external_id") -> list[Json]:
    return [row[0] for row in read(path, column)]


# CSV


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("is_closed", [True, False])
def test_lines_may_end_in_any_way(tmp_path: Path, end: str, mark: bytes, *, is_closed: bool) -> None:
    text = end.join(["external_id,name", "u1,Ann", "ü2,Bob", ",x"]) + (end if is_closed else "")
    (tmp_path / "a.csv").write_bytes(mark + text.encode())
    assert read(tmp_path / "a.csv", "external_id", "name") == [("u1", "Ann"), ("ü2", "Bob"), ("", "x")]


def test_quotes_commas_and_line_ends_stand_in_cells(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "name,external_id", '"Ann, ""A""",u1', '"two\nlines",u2', "plain,u3")
    assert read(path, "external_id", "name") == [("u1", 'Ann, "A"'), ("u2", "two\nlines"), ("u3", "plain")]


def test_rows_know_their_lines_behind_cells_of_several_lines(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "name,external_id", '"two\nlines",u1', "", "only one cell", "x,u2")
    (chunk,) = read_recipients(Reading(path, "external_id"))
    assert [chunk.line(index) for index in range(3)] == [2, 5, 6]
    assert chunk.faults == {1: Fault(5, "", "has 1 cells where the header has 2")}


def test_empty_lines_are_no_rows_and_quoted_nothing_is_one(tmp_path: Path) -> None:
    assert ids(csv_file(tmp_path, "external_id", "u1", "", '""', "u2", "", "")) == ["u1", "", "u2"]


def test_a_quote_within_a_cell_is_that_cells_own_and_spoils_no_other(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "size,external_id", '5" pipe,u1', '6" pipe,u2')
    assert read(path, "external_id", "size") == [("u1", '5" pipe'), ("u2", '6" pipe')]


def test_text_behind_a_closing_quote_spoils_its_row_only(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "external_id,n", '"u1"x,1', "u2,2")
    assert ids(path) == ["u2"]
    assert [str(fault) for fault in faults(path)] == ["line 2: is no CSV: ',' expected after '\"'"]


def test_a_quote_that_is_never_closed_is_refused_because_it_swallows_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 3: a quote is opened here and never closed"):
        ids(csv_file(tmp_path, "external_id,n", "u1,1", 'u2,"2', "u3,3"))
    with pytest.raises(InputError, match="line 2: a cell has more than 131,072 characters"):
        ids(csv_file(tmp_path, "external_id,n", 'u2,"2', *["u3,3"] * 60_000))


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"external_id,n\nu1,1\nu\xff2,2\nu3,\xe9\nu4,4\n")
    assert ids(tmp_path / "a.csv") == ["u1", "u4"]
    assert [fault.line for fault in faults(tmp_path / "a.csv")] == [3, 4]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "is empty; its first line must name the columns"),
        (["", ""], "is empty; its first line must name the columns"),
        (["externalid,n", "u1,1"], "has no column 'external_id'; did you mean 'externalid'?"),
        (["a,b", "u1,1"], "has no column 'external_id'; it has: a, b"),
        (["external_id;n", "u1;1"], "its cells are separated by semicolons; save it with commas"),
        (["external_id\tn", "u1\t1"], "its cells are separated by tabs; save it with commas"),
        (["external_id,external_id", "u1,1"], "has two columns 'external_id'"),
    ],
)
def test_a_header_that_does_not_serve_is_explained(tmp_path: Path, lines: list[str], told: str) -> None:
    with pytest.raises(InputError, match=r"recipients\.csv") as caught:
        ids(csv_file(tmp_path, *lines))
    assert told in str(caught.value)


def test_a_file_of_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert ids(csv_file(tmp_path, "external_id")) == []


def test_an_export_of_onesignal_is_read_as_it_is(tmp_path: Path) -> None:
    tags = json.dumps({"level": "5"}).replace('"', '""')
    path = csv_file(
        tmp_path,
        "id,identifier,tags,invalid_identifier,external_user_id",
        f's1,a,"{tags}",f,u1',
        f's2,b,"{tags}",t,u2',
        f's3,c,"{tags}",f,',
    )
    (chunk,) = read_recipients(Reading(path, "id"))
    assert (chunk.ids, chunk.unusable) == (["s1", "s2", "s3"], [1])
    (chunk,) = read_recipients(Reading(path, "external_user_id"))
    assert (chunk.ids, chunk.unusable) == (["u1", "u2", ""], [1, 2])


NO_LINE_ENDS = {10: None, 13: None}
cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(cells, cells, cells), max_size=20),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    is_quoted=st.booleans(),
    block_bytes=st.integers(1, 200),
)
def test_whatever_a_csv_writer_writes_is_read_in_blocks_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    end: str,
    *,
    is_quoted: bool,
    block_bytes: int,
) -> None:
    text = io.StringIO(newline="")
    if is_quoted:
        writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    else:  # the writer leaves line ends that are not its own unquoted
        writer = csv.writer(text, lineterminator=end)
        rows = [(a.translate(NO_LINE_ENDS), b.translate(NO_LINE_ENDS), c.translate(NO_LINE_ENDS)) for a, b, c in rows]
    writer.writerows([("a", "external_id", "b"), *rows])
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_bytes(text.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvrows, "read_blocks", partial(blocks.read_blocks, block_bytes=block_bytes))
        digest = Digest()
        chunks = list(read_recipients(Reading(path, "external_id", others=["b"], digest=digest)))
        assert read(path, "external_id", "b") == [(item, last) for _, item, last in rows]
        for chunk in chunks:  # reading can begin again wherever a chunk begins
            rest = read_recipients(Reading(path, "external_id", others=["b"], start=chunk.start))
            found = [pair for part in rest for pair in zip(part.ids, part.cells["b"], strict=True)]
            assert found == [(item, last) for _, item, last in rows[chunk.first_row :]]
    assert digest.hex == sha256(path.read_bytes()).hexdigest()


# JSON Lines


def test_rows_of_json_are_keyed_by_column(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(ROW + '\n{"n": [1, {"x": 2}], "external_id": 17, "first": null}\r\n{"external_id":"ü"}')
    assert read(path, "external_id", "n") == [("u1", None), ("17", [1, {"x": 2}]), ("ü", None)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"external_id": true}', "line 2: external_id: expected `int | str`, got `bool`"),
        ('{"external_id": null}', "line 2: external_id: expected `int | str`, got `null`"),
        ('{"other": "u2"}', "line 2: external_id: is missing"),
        ('["u2"]', "line 2: expected `object`, got `array`"),
        ('{"external_id": "u2"', "line 2: is no JSON object: Input data was truncated"),
        ('{"external_id": "u2"} {"external_id": "u3"}', "line 2: is no JSON object"),
        ("u2", "line 2: is no JSON object"),
        ('{"external_id": "\udcff"}', "line 2: holds bytes that are not UTF-8"),
        (f'{{"external_id": "u2", "n": {"[" * 5000}{"]" * 5000}}}', "line 2: is nested too deeply"),
    ],
)
def test_a_faulty_row_of_json_spoils_itself_only(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{ROW}{line}\n{{"external_id": "u4"}}\n', errors="surrogateescape")
    assert ids(path) == ["u1", "u4"]
    assert str(faults(path)[0]).startswith(told)


def test_a_pipe_is_refused_before_it_is_opened_since_nobody_may_ever_write_into_it(tmp_path: Path) -> None:
    path = tmp_path / "recipients.csv"
    os.mkfifo(path)
    with pytest.raises(InputError, match="is a pipe, and has to be read more than once"):
        file_stamp(path)


def test_a_pipe_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)  # a writer is there, so that opening it does not wait
    os.write(descriptor, ROW.encode())
    with pytest.raises(InputError, match="is a pipe, and has to be read more than once; write it into a file first"):
        ids(path)
    os.close(descriptor)


def test_a_first_row_without_the_column_refuses_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"externalId": "u1"}\n')
    with pytest.raises(InputError, match=r"has no column 'external_id'; did you mean 'externalId'\?"):
        ids(path)


# Either


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "A.CSV", "renamed.csv"])
def test_gzip_is_recognised_whatever_the_name(tmp_path: Path, name: str) -> None:
    text = ROW * 20_000 if "jsonl" in name else "external_id\n" + "u1\n" * 20_000
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") or "renamed" in name else content)
    assert ids(tmp_path / name) == ["u1"] * 20_000


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv.gz", gzip.compress(b"external_id\nu1\n", mtime=0)[:-9], "the gzip data is cut short or damaged"),
        ("a.csv.gz", b"\x1f\x8bnothing", "the gzip data is cut short or damaged"),
        ("a.csv", "external_id\nu1".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ("a.xlsx", b"", "a file of recipients ends in .csv"),
        ("missing.csv", None, "there is no such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_explained(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        ids(tmp_path / name)
    assert told in str(caught.value)


def test_a_line_without_an_end_is_refused_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LONGEST_LINE_BYTES", 1000)
    (tmp_path / "a.jsonl").write_bytes(b"x" * 200_000)
    with pytest.raises(InputError, match="has a line of more than 1,000 bytes"):
        ids(tmp_path / "a.jsonl")


def test_a_carriage_return_and_its_line_feed_are_never_torn_apart(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"ab\r\ncd\r\n")
    for size in range(1, 9):
        found = list(blocks.read_blocks(tmp_path / "a.txt", block_bytes=size))
        assert b"".join(block for _, block in found) == b"ab\r\ncd\r\n"
        assert all(block.endswith(b"\n") for _, block in found), size
        assert all(b"ab\r\ncd\r\n".startswith(block, offset) for offset, block in found), size


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz"])
def test_a_file_of_any_kind_is_read_again_from_a_mark(tmp_path: Path, name: str) -> None:
    rows = [f"ü{number}" for number in range(20_000)]
    lines = [json.dumps({"external_id": row}) for row in rows] if "jsonl" in name else ["external_id", *rows]
    content = b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in lines).encode()
    path = tmp_path / name
    path.write_bytes((gzip.compress(content) + bytes(9)) if name.endswith("gz") else content)
    digest = Digest()
    chunks = list(read_recipients(Reading(path, "external_id", digest=digest)))
    assert digest.hex == file_digest(path)
    assert len(chunks) > 2
    for chunk in chunks:
        again = list(read_recipients(Reading(path, "external_id", start=chunk.start)))
        assert [item for part in again for item in part.ids] == rows[chunk.first_row :]
        assert again[0].line(0) == chunk.line(0)
