"""Identity of values; needs the standard library only, so that what a registered model carries can use it."""

import hashlib
import json


def fingerprint(value: object) -> str:
    """Hexadecimal SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
