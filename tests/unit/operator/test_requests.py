"""What is sent to the API server: the same to who reads it as JSON and to who reads it as YAML."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from psephos_operator.kube.client import encoded

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(TEXT, max_size=4))
def test_any_text_is_the_same_as_json_and_as_yaml(texts: list[str]) -> None:
    assert json.loads(encoded({"texts": texts})) == {"texts": texts}
    assert yaml.safe_load(encoded({"texts": texts})) == {"texts": texts}


SIGNS = ["\N{FIRE}", "\u2028", "\x85", "\x7f", "\ufeff", "\\ud83d", "\0", "é", "\U0010ffff"]


@pytest.mark.parametrize("sign", SIGNS)
def test_signs_that_the_two_escape_differently(sign: str) -> None:
    assert yaml.safe_load(encoded({sign: sign})) == json.loads(encoded({sign: sign})) == {sign: sign}
