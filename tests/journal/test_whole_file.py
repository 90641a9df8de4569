"""A shared file is whole at every instant, and its lock keeps others out."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from sendengine.errors import StorageError
from sendengine.journal import whole_file


def test_a_file_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert whole_file.read(tmp_path / "a.json") is None


def test_what_was_put_in_place_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for data in (b"first", b"second, longer", b""):
        whole_file.replace_whole(path, data)
        assert whole_file.read(path) == data
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_copy_that_a_crash_left_is_no_obstacle_whatever_its_mode(tmp_path: Path) -> None:
    left = tmp_path / "a.json.new"
    left.write_bytes(b"torn")
    left.chmod(0o444)
    whole_file.replace_whole(tmp_path / "a.json", b"whole")
    assert (tmp_path / "a.json").read_bytes() == b"whole"
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600


def test_a_copy_is_never_written_through_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    (tmp_path / "a.json.new").symlink_to(elsewhere)
    whole_file.replace_whole(tmp_path / "a.json", b"whole")
    assert elsewhere.read_bytes() == b"precious"


def test_one_thread_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on" / "the" / "way" / "a.json"
    inside, most = [0], [0]

    def count() -> None:
        for _ in range(20):
            with whole_file.locked(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=count, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "it waits for the lock for ever"
    assert most == [1]


def test_a_lock_is_given_up_where_what_it_guards_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ZeroDivisionError), whole_file.locked(path):
        raise ZeroDivisionError
    with whole_file.locked(path):
        pass


def test_a_lock_that_never_comes_free_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_file, "LOCK_TRIES", 3)
    path = tmp_path / "a.json"
    stopped = os.open(tmp_path / "a.json.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(stopped, fcntl.LOCK_EX)
    with pytest.raises(StorageError, match=r"a\.json is locked by another process"), whole_file.locked(path):
        pass
    os.close(stopped)


def test_a_file_system_without_locks_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=r"cannot lock .*a\.json: No locks"), whole_file.locked(tmp_path / "a.json"):
        pass


def test_what_the_file_system_refuses_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    inside_a_file = tmp_path / "file" / "a.json"
    with pytest.raises(StorageError, match=r"cannot write .*a\.json"), whole_file.locked(inside_a_file):
        pass
    with pytest.raises(StorageError, match=r"cannot write .*a\.json"):
        whole_file.replace_whole(inside_a_file, b"")
    with pytest.raises(StorageError, match=r"cannot read .*directory"):
        whole_file.read(tmp_path / "directory")
    with pytest.raises(StorageError, match=r"cannot rename .*gone"):
        whole_file.set_aside(tmp_path / "gone")


def test_setting_aside_keeps_the_file_under_another_name_and_says_when_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"odd")
    os.utime(path, (1000, 1000))
    aside, written_s = whole_file.set_aside(path)
    assert (aside.name, aside.read_bytes(), written_s) == ("a.json.damaged", b"odd", 1000)
    assert not path.exists()
