"""The machine-readable output of commands."""

from collections.abc import Mapping
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(decimal_format="number")


def encode_result(result: Mapping[str, Any]) -> str:
    """The result as one line of JSON; decimals become numbers."""
    return _encoder.encode(result).decode()
