"""Secrets in addresses: what is shown, logged or stored names the server, never the password."""

import re
from typing import Final

# Up to the last @ before the path: a password may hold an @ itself.
_LOGIN: Final = re.compile(r"""(?<=://)[^/\s'"]*@""")
_QUERY: Final = re.compile(r"""([?&](?:\w*password|\w*passwd|\w*token|\w*secret)=)[^&\s'"]+""", re.IGNORECASE)
_HIDDEN: Final = "***"


def redact(text: str) -> str:
    """The text with `user:password@` of every address, and passwords in its query, replaced by `***`."""
    return _QUERY.sub(rf"\g<1>{_HIDDEN}", _LOGIN.sub(f"{_HIDDEN}@", text))
