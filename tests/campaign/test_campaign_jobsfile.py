"""Jobs files: every line becomes its job or a fault that says where; what they would send is counted first."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import pytest

from sendengine.campaign import jobsfile
from sendengine.campaign.jobsfile import Audience, AudienceSize, read_jobs, survey_jobs
from sendengine.campaign.survey import BILLING_WARNING
from sendengine.errors import InputError

NOTE = '"kind":"create_notification","message":{"contents":{"en":"Hi"}}'
TO = '"to":{"external_id":["u1"]},"channel":"push"'
ONE_APP: Mapping[str, tuple[str, ...]] = {"shop": ()}


def written(folder: Path, *lines: str) -> Path:
    path = folder / "jobs.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_file_is_counted_checked_and_added_up(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"{{{NOTE},{TO}}}",
        "",
        "nonsense",
        f'{{{NOTE},"to":{{"email":["a@example.com","b@example.com"]}}}}',
        f'{{{NOTE},"to":{{"email":["nobody"]}}}}',
        f'{{{NOTE},"to":{{"segments":["All"]}},"channel":"push"}}',
        f'{{{NOTE},"to":{{"segments":["All"]}},"channel":"push","expected_recipients":500}}',
        '{"kind":"update_user","user":{"external_id":"NULL"},"tags":{"a":"1"}}',
        '{"kind":"update_user","user":{"external_id":"u"},"deltas":{"session_count":1}}',
        f'{{{NOTE},{TO},"app":"shopp"}}',
        f'{{{NOTE},"to":{{"email":{"[" * 5000}{"]" * 5000}}}}}',
    )
    reads: list[int] = []
    survey = survey_jobs(path, fences=ONE_APP, when_read=reads.append)
    assert (survey.rows, survey.to_send, survey.invalid) == (10, 5, 5)
    assert [str(told) for told in survey.faults] == [
        "line 3: is no JSON: JSON is malformed: invalid character (byte 4)",
        "line 5: to.email: 'nobody' is no e-mail address",
        "line 8: user.external_id: 'NULL' is a placeholder that OneSignal refuses",
        "line 10: app: 'shopp' is not configured; did you mean 'shop'?",
        "line 11: is nested too deeply",
    ]
    assert survey.audiences == {
        Audience("shop", "create_notification", "push"): AudienceSize(jobs=3, recipients=501, uncounted=1),
        Audience("shop", "create_notification", "email"): AudienceSize(jobs=1, recipients=2),
        Audience("shop", "update_user", ""): AudienceSize(jobs=1),
    }
    assert survey.warnings == (BILLING_WARNING,)
    assert reads == [1]


def test_with_several_apps_a_job_names_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, f"{{{NOTE},{TO}}}", f'{{{NOTE},{TO},"app":"news"}}')
    survey = survey_jobs(path, fences={"shop": (), "news": ()})
    assert [str(told) for told in survey.faults] == ["line 1: app: is missing; the settings have shop, news"]


def test_a_fence_keeps_jobs_in(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f'{{{NOTE},"to":{{"external_id":["qa"]}},"channel":"push"}}',
        f'{{{NOTE},"to":{{"external_id":["qa","u1"]}},"channel":"push"}}',
        f'{{{NOTE},"to":{{"segments":["All"]}},"channel":"push"}}',
    )
    survey = survey_jobs(path, fences={"shop": ("external_id:qa",)})
    assert [str(told) for told in survey.faults] == [
        "line 2: to.external_id: 'u1' is not in the app's only_to",
        "line 3: to.segments: reach whom they like, and app 'shop' has only_to; name the recipients",
    ]


def test_faults_beyond_the_listed_ones_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobsfile, "FAULTS_KEPT", 2)
    survey = survey_jobs(written(tmp_path, *["x"] * 5), fences=ONE_APP)
    assert (survey.invalid, len(survey.faults)) == (5, 2)


def test_gzipped_and_empty_files_are_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl.gz").write_bytes(gzip.compress(f"{{{NOTE},{TO}}}\n".encode() * 3))
    assert [line for line, _ in read_jobs(tmp_path / "jobs.jsonl.gz")] == [1, 2, 3]
    assert survey_jobs(written(tmp_path), fences=ONE_APP).rows == 0
    with pytest.raises(InputError, match="there is no such file"):
        survey_jobs(tmp_path / "none.jsonl", fences=ONE_APP)
