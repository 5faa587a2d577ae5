"""Addresses that a user writes: they say where something lies, and never hold what opens it.

Settings are saved beside artefacts, in runs and on pages that a team reads, so a secret must not be among them. A secret
that stands in the path itself (`https://host/3f9a…/v1`) cannot be told from a name, and is not found.
"""

import re
from typing import Final
from urllib.parse import unquote

_DECODINGS: Final = 3  # an address inside an address inside an address
# `user@`, `user:password@`; a password may hold slashes, and a port is none.
_LOGIN: Final = re.compile(
    r"(?:^|[:=])//(?:[^/?#\s@]*@|[^/?#\s@:\[]*:(?!\d+(?:[/?#]|$))[^@\s]*@)"
    r"|^[^\s/:@]+:[^\s/@]+@[A-Za-z\d][\w.-]+(?::\d+)?(?:/|$)"  # without `scheme://`
)
_PART_OF_NAME: Final = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "signature", "authorization", "accesskey",
)  # fmt: skip
_NAME: Final = {
    "pass",
    "psw",
    "pw",
    "auth",
    "sig",
    "sas",
    "jwt",
    "bearer",
    "session",
    "sessionid",
    "jsessionid",
    "hmac",
    "code",
    "pat",
}
_FILES: Final = {"sslkey"}  # of PostgreSQL: where a key lies


def refuse_secrets(text: str) -> None:
    """Find logins, and keys, passwords, tokens and signatures among the parameters, however they are encoded.

    Raises:
        ValueError: there is one; the message says where to put it, and does not show it.
    """
    for _ in range(_DECODINGS):
        if _LOGIN.search(text):
            raise ValueError(_refusal("a login before '@'"))
        if name := _secret_parameter(text):
            raise ValueError(_refusal(f"a value of '{name}'"))
        text = unquote(text)


def _secret_parameter(text: str) -> str | None:
    """Name of the first parameter that has a value and sounds like a secret: of a query, or of a connection string."""
    parts = re.split(r"[?&;#]", text)
    for part in parts[1:] if "//" in text else parts if ";" in text else ():
        *names, value = part.split("=")
        for name in names:
            if (value or len(names) > 1) and _is_secret(re.sub(r"[^a-z0-9]", "", name.lower())):
                return name
    return None


def _is_secret(name: str) -> bool:
    if name in _FILES:
        return False
    return name in _NAME or name.endswith("key") or any(part in name for part in _PART_OF_NAME)


def _refusal(what: str) -> str:
    return (
        f"an address must not hold credentials, and this one has {what}: settings are saved with runs and artefacts. Give "
        "it without, and set variables of the environment instead: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
        "(PostgreSQL: PGUSER and PGPASSWORD) for runs, PC_SDK_SUBSCRIPTION_KEY for Planetary Computer, "
        "GOOGLE_APPLICATION_CREDENTIALS for Earth Engine, RAY_AUTH_TOKEN_PATH for Ray, the store's own (AWS_ACCESS_KEY_ID "
        "and AWS_SECRET_ACCESS_KEY, …) for objects"
    )
