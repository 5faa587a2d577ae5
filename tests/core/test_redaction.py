"""Planted secrets are in nothing that is shown or logged."""

import io
import logging

import pytest

from cropray.cli import main
from cropray.core.redaction import HideSecrets, redact
from cropray.stages.pipeline import log_to_file


@pytest.mark.parametrize(
    "text",
    [
        "https://a.blob.core.windows.net/c/x.tif?st=2023&se=HUSH&sp=rl&sv=2021&sr=c&sig=HUSH%2Babc%3D",
        "'/vsicurl/https://h/x.tif?st=1&sig=HUSH' not recognized as being in a supported file format",
        "https://s3/x.tif?X-Amz-Algorithm=A&X-Amz-Credential=HUSH%2F2023&X-Amz-Security-Token=HUSH&X-Amz-Signature=HUSH",
        "https://storage/x?GoogleAccessId=HUSH@x&Expires=1&Signature=HUSH",
        "https://storage/x?X-Goog-Signature=HUSH&X-Goog-Credential=HUSH",
        "https://bucket/x?AWSAccessKeyId=HUSH&Signature=HUSH",
        "https://h/x?api_key=HUSH",
        "https://h/x?a=1&amp;apikey=HUSH",
        "https://h/x?subscription-key=HUSH)",
        "https://h/x?access_token=HUSH, password=1",
        "https://cdn/x?Policy=p&Key-Pair-Id=HUSH&key=HUSH",
        "https://HUSH:HUSH@h/x",
        "s3://HUSH@bucket/x",
        "/vsicurl?url=https%3A%2F%2Fh%2Fx.tif%3Fst%3D1%26sig%3DHUSH%26x%3D1",
        "{'Authorization': 'Bearer HUSH'}",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=HUSH==;EndpointSuffix=core",
    ],
)
def test_secrets_are_hidden(text):
    assert "HUSH" not in redact(text)
    assert redact(redact(text)) == redact(text)


def test_the_rest_stays():
    text = "HTTP 403: https://h/x.tif?st=1&sp=rl&monkey=2 (key=value, token: none)"
    assert redact(text) == text


def test_logs_are_redacted_with_their_tracebacks():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(HideSecrets())
    log = logging.getLogger("planted")
    log.addHandler(handler)
    error = OSError("cannot open https://h/x?sig=HUSH")
    log.error("at %s", "https://ada:HUSH@h/x?api_key=HUSH&x=%d", exc_info=error)
    log.removeHandler(handler)
    assert "HUSH" not in stream.getvalue()
    assert "cannot open https://h/x?sig=***" in stream.getvalue()


def test_a_stages_log_file_is_redacted(tmp_path):
    with log_to_file(tmp_path / "acquire.log"):
        logging.getLogger("planted").warning("cannot open https://h/x?sig=HUSH")
    assert "https://h/x?sig=***" in (tmp_path / "acquire.log").read_text()


def test_errors_of_the_command_line_are_redacted(tmp_path, capsys):
    assert main(["zones", str(tmp_path / "job.yaml?sig=HUSH")]) == 1
    assert "job.yaml?sig=***" in capsys.readouterr().err
