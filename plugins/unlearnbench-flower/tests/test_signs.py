"""What is heard of parties by their files; this does without Flower."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unlearnbench_flower import signs
from unlearnbench_flower.signs import Silence, giving_signs, sign_file


def test_whoever_trains_gives_signs_and_shows_at_the_end_that_it_has_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signs, "BEAT_SECONDS", 0.01)
    file = sign_file(tmp_path, 0, 3)
    silence = Silence({3: file})
    assert silence.awaited() == "party 3"
    with giving_signs(file):
        first = file.stat().st_mtime_ns
        while file.stat().st_mtime_ns == first:
            pass
        assert silence.awaited() == "party 3"
    assert silence.awaited() == "the server's app"


def test_whoever_fails_has_not_trained(tmp_path: Path) -> None:
    file = sign_file(tmp_path, 0, 3)
    with pytest.raises(ValueError, match="no"), giving_signs(file):
        raise ValueError("no")
    assert Silence({3: file, 4: sign_file(tmp_path, 0, 4)}).awaited() == "parties 3, 4"


def test_each_sign_ends_the_silence(tmp_path: Path) -> None:
    now = 0.0
    files = {party: sign_file(tmp_path, 0, party) for party in (0, 1)}
    silence = Silence(files, lambda: now)
    assert silence.seconds() == 0
    now = 7.0
    assert silence.seconds() == 7
    files[0].touch()
    assert silence.seconds() == 0
    now = 10.0
    assert silence.seconds() == 3
    # A clock that is set back gives signs as well.
    os.utime(files[0], (1, 1))
    assert silence.seconds() == 0
    with giving_signs(files[1]):
        now = 30.0
        assert silence.seconds() == 0
    now = 31.0
    assert silence.seconds() == 0
    now = 41.0
    assert silence.seconds() == 10
    assert silence.awaited() == "party 0"
