"""What the lanes learned outlives a restart, and a damaged file costs no more than a warning."""

from pathlib import Path

import pytest

from sendengine.errors import StorageError
from sendengine.journal.learned import Numbers, lane_key, load, save

CREATE = lane_key(app_id="8250eaf6", group="create_notification")
UPDATE = lane_key(app_id="8250eaf6", group="update_user")


def test_a_lane_is_named_by_its_app_and_group() -> None:
    assert CREATE == "8250eaf6/create_notification"


def test_nothing_is_known_before_the_first_save(tmp_path: Path) -> None:
    assert load(tmp_path / "learned.json") == {}


def test_what_was_saved_is_loaded_again_to_the_last_digit(tmp_path: Path) -> None:
    path = tmp_path / "state" / "learned.json"
    lanes: dict[str, Numbers] = {CREATE: {"limit": 3960.123456789, "trim": None}, UPDATE: {"limit": 0.1 + 0.2}}
    save(path, lanes)
    assert load(path) == lanes
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_save_keeps_what_other_lanes_learned_and_replaces_its_own(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    save(path, {CREATE: {"limit": 4000.0, "trim": 0.99}, UPDATE: {"limit": 900.0}})
    save(path, {CREATE: {"limit": 5000.0}})
    assert load(path) == {CREATE: {"limit": 5000.0}, UPDATE: {"limit": 900.0}}


def test_a_lane_without_numbers_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    save(path, {CREATE: {"limit": 4000.0}, UPDATE: {"limit": 900.0}})
    save(path, {CREATE: {}})
    assert load(path) == {UPDATE: {"limit": 900.0}}


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[]", b'{"a":1}', b'{"a":{"b":"c"}}'])
def test_a_damaged_file_is_ignored_with_a_warning_and_the_next_save_replaces_it(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "learned.json"
    path.write_bytes(damage)
    assert load(path) == {}
    assert "learned.json is damaged" in caplog.text
    save(path, {CREATE: {"limit": 4000.0}})
    assert load(path) == {CREATE: {"limit": 4000.0}}


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        save(tmp_path / "file" / "learned.json", {CREATE: {"limit": 1.0}})
