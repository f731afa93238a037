"""What commands print for programs."""

from collections.abc import Mapping
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(decimal_format="number")


def encode_result(result: Mapping[str, Any]) -> str:
    """One line of JSON; decimals become numbers."""
    return _encoder.encode(result).decode()
