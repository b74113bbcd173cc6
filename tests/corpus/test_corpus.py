"""Every entry of the corpus is read with right values in the right place, or refused in a line."""

from __future__ import annotations

import pytest

from tests.corpus import CORPUS
from tests.corpus.check import check


@pytest.mark.parametrize("name", list(CORPUS))
def test_entry(name, tmp_path):
    entry = CORPUS[name]
    outcome = check(entry, tmp_path, ["info" if entry.refused else "convert"])
    assert outcome.result != "fault", outcome.message
