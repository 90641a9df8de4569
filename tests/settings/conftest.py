"""The smallest settings file that there can be."""

from pathlib import Path

import pytest

from tests.settings.files import SMALLEST


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sendengine.toml"
    path.write_text(SMALLEST)
    return path
