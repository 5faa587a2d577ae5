"""Secrets in addresses: what is shown, logged or stored names the server, never the password or the signature."""

import logging
import re
from typing import Final

# Up to the last @ before the path: a password may hold an @ itself.
_LOGIN: Final = re.compile(r"""(?<=://)[^/\s'"]*@""")
# Names of what must not be shown: passwords and tokens, and the signatures of Azure, Amazon and Google.
_NAMES: Final = (
    r"[\w-]*passw(?:or)?d|pwd|[\w-]*token|[\w-]*secret|[\w-]*signature|[\w-]*credential|[\w-]*api[_-]?key|"
    r"[\w-]*subscription-key|[\w-]*access[_-]?key(?:[_-]?id)?|accountkey|googleaccessid|key-pair-id|key|auth|sig|se"
)
_VALUE: Final = r"""(?:(?!%26|&)[^\s'"<>;,)])+"""
# An address may stand in another's query, with its own signs encoded.
_QUERY: Final = re.compile(rf"((?:[?&;]|%3F|%26)(?:{_NAMES})(?:=|%3D)){_VALUE}", re.IGNORECASE)
_HEADER: Final = re.compile(r"""(authorization['"]?\s*[:=]\s*['"]?(?:bearer|basic)\s+)[^\s'",]+""", re.IGNORECASE)
_HIDDEN: Final = "***"
# A logger's filter does not count for those below it.
_NETWORK_LOGS: Final = (
    *("rasterio", "rasterio.env", "rasterio._env", "rasterio._err", "rasterio._base", "rasterio._io"),
    *("urllib3.connectionpool", "pystac_client.stac_api_io"),
)


def redact(text: str) -> str:
    """The text with `user:password@` of every address, and secrets in its query, replaced by `***`."""
    text = _LOGIN.sub(f"{_HIDDEN}@", text)
    for pattern in (_QUERY, _HEADER):
        text = pattern.sub(rf"\g<1>{_HIDDEN}", text)
    return text


class HideSecrets(logging.Filter):
    """Redacts every record that passes: its message, and the traceback that goes with it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, redacted."""
        record.msg, record.args = redact(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        return True


_HIDE_SECRETS: Final = HideSecrets()


def hide_secrets_of_network() -> None:
    """Redact what the libraries that open addresses log in this process, wherever it goes; again does nothing."""
    for name in _NETWORK_LOGS:
        logging.getLogger(name).addFilter(_HIDE_SECRETS)
