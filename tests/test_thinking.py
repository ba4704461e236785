import json
import re

import pytest
from pocket.traces import FILLERS, RECHECKS, RESTART

from repro_trl.thinking import (
    BACKTRACK_PHRASES,
    backtrack_patterns,
    count_backtracks,
    count_backtracks_by_kind,
    read_backtrack_phrases,
    thinking_text,
)


@pytest.mark.parametrize(
    ("segment", "kinds"),
    [
        ("Wait, that is wrong.", {"wait"}),
        ("So we await a waiter's weight.", set()),
        ("ACTUALLY it is 7", {"wait"}),
        ("Let's verify 3 + 4", {"re-check"}),
        ("Let’s verify 3 + 4", {"re-check"}),
        ("let me\n  check A", {"re-check"}),
        ("Let me double-check, then re-check.", {"re-check"}),
        ("Wait, let me check B", {"wait", "re-check"}),
        ("No, start over.", {"restart"}),
        ("We restart the machine", set()),
        ("", set()),
    ],
)
def test_kinds_of_a_segment(segment, kinds):
    total, by_kind = count_backtracks_by_kind(segment)
    assert {kind for kind, count in by_kind.items() if count} == kinds and total == bool(kinds)
    assert list(by_kind) == list(BACKTRACK_PHRASES)


def test_segments_count_once_and_only_in_the_thought():
    completion = "Wait, wait.\n\n2 + 2 = 4\n\nHold on, check again.\n\nstart over</think>\n\nWait, the answer is 4."
    assert count_backtracks_by_kind(completion) == (3, {"wait": 2, "re-check": 1, "restart": 1})
    assert count_backtracks(completion) == 3
    assert count_backtracks(completion, think_end=None) == 4
    assert count_backtracks(completion, delimiter="start") == 1
    assert thinking_text(completion).endswith("start over") and thinking_text(completion, None) == completion


def test_every_way_the_pocket_model_turns_back_is_found():
    for opening in RECHECKS:
        assert count_backtracks(f"{opening}A: 1+1 = 2\n\nA: 1+1 = 2\n\n") == 1
    assert count_backtracks_by_kind(RESTART)[1]["restart"] == 1
    assert not any(map(count_backtracks, FILLERS))


def test_phrases_of_your_own(tmp_path):
    file = tmp_path / "phrases.json"
    file.write_text(json.dumps({"doubt": ["hmm", "(?)"], "wechsel": ["halt, nein"]}), encoding="utf-8")
    patterns = backtrack_patterns(read_backtrack_phrases(file))
    text = "Hmm. 7\n\nIs it 7 (?)\n\nHalt,  nein!\n\nWait"
    assert count_backtracks_by_kind(text, patterns=patterns) == (3, {"doubt": 2, "wechsel": 1})


@pytest.mark.parametrize("content", ["wait", "[]", "{}", '{"wait": "wait"}', '{"wait": [1]}'])
def test_a_bad_file_of_phrases_is_named(tmp_path, content):
    file = tmp_path / "phrases.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(file))):
        read_backtrack_phrases(file)


@pytest.mark.parametrize("phrases", [[], ["wait", " "]])
def test_empty_phrases_are_refused(phrases):
    with pytest.raises(ValueError, match="'wait'"):
        backtrack_patterns({"wait": phrases})
