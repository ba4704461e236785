"""Fixtures of several test files."""

import pytest

from repro_trl.method import token_text


@pytest.fixture
def without_table(monkeypatch):
    """Every tokenizer is read by decoding, as one whose decoder is not understood."""
    monkeypatch.setattr(token_text, "_build_table_reader", lambda tokenizer: (None, "the test says so"))
