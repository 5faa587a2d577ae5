"""No secret comes into settings by an address, whatever the setting, and none is shown on the way out."""

import types
from typing import get_args
from urllib.parse import quote

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from upath import UPath

from cropray.config import JobConfig
from cropray.core.addresses import refuse_secrets
from cropray.core.errors import ConfigError
from cropray.io.job_file import load_settings
from cropray.io.raw_files import as_input

SECRET = "pl4nted-Wert"
BAD = [
    f"https://{SECRET}@catalogue.example/v1",
    f"https://reader:{SECRET}@catalogue.example/v1",
    f"https://:{SECRET}@catalogue.example:8443/v1",
    f"https://reader%3A{SECRET}%40catalogue.example/v1",
    f"postgresql+psycopg2://runs:{SECRET}/with/slash@db.example/runs",
    f"postgresql://db.example/runs?user=runs&password={SECRET}",
    f"mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BUID%3Druns%3BPWD%3D{SECRET}",
    f"https://catalogue.example/v1?subscription-key={SECRET}",
    f"https://catalogue.example/v1?subscription%2Dkey={SECRET}",
    f"https://catalogue.example/v1?page=2&API_KEY={SECRET}",
    f"https://catalogue.example/v1?key={SECRET}",
    f"https://store.blob.example/c/x.tif?sv=2024&se=2030&sig={SECRET}",
    f"https://store.example/x?X-Amz-Credential=AKIA&X-Amz-Signature={SECRET}",
    f"https://store.example/x?%74oken={SECRET}",
    f"https://store.example/x#access_token={SECRET}",
    f"https://fn.example/api/tiles?code={SECRET}",
    f"https://fn.example/api/tiles?x-functions-key={SECRET}",
    f"https://dev.example/x?version=3&PAT={SECRET}",
    f"https://store.example/x;jsessionid={SECRET}",
    f"https://proxy.example/?to={quote(f'https://a:{SECRET}@b.example', safe='')}",
    f"https://proxy.example/?to={quote(quote(f'https://b.example?auth={SECRET}', safe=''), safe='')}",
    f"/vsicurl/https://u:{SECRET}@host/x.tif",
    f"/vsicurl?url=https%3A%2F%2Fu%3A{SECRET}%40host%2Fx.tif",
    f"s3://AKIA:{SECRET}@bucket/run",
    f"ray://root:{SECRET}@head:10001",
    f"root:{SECRET}@head:6379",
    f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}==",
]
GOOD = [
    "https://planetarycomputer.microsoft.com/api/stac/v1",
    "https://catalogue.example:8443/a@b/c:d@e?page=2&bbox=1,2",
    "http://127.0.0.1:5000",
    "http://[::1]:5000/v1",
    "postgresql://db.example:5432/runs?sslmode=require&sslkey=/home/ada/client.key&passfile=/home/ada/.pgpass",
    "s3://bucket/key=5/zone@home/token=a/x.parquet",
    "s3://bucket/a b?versionId=3",
    "ray://head:10001",
    "/data/2023 (a;b)/x@y//user@z.tif",
    "C:/data/x.tif",
    "relative/key=3/**/*?key=5.tif",
    "100 % beets",
    "sqlite:////data/runs.db",
    "https://catalogue.example/v1?token=",
    "https://catalogue.example/v1?country_code=FR&pattern=x&signed=yes&keywords=crops",
]


@pytest.mark.parametrize("address", BAD)
def test_a_secret_is_found_and_not_shown(address):
    with pytest.raises(ValueError, match="must not hold credentials") as error:
        refuse_secrets(address)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("address", GOOD)
def test_other_addresses_are_let_through(address):
    refuse_secrets(address)


def texts(model, prefix=""):
    """(dotted name, tags to choose on the way) of all settings of a job that are read from text of any form."""
    for name, field in model.model_fields.items():
        for kind, tag in members(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                source = kind.model_fields.get("source")
                chosen = {f"{prefix}{name}.source": get_args(source.annotation)[0]} if source else {}
                yield from ((below, chosen | more) for below, more in texts(kind, f"{prefix}{name}."))
            elif tag == "text":
                yield f"{prefix}{name}", {}


def members(annotation):
    if annotation is str or getattr(annotation, "__name__", "") in {"Path", "UPath"}:
        yield None, "text"
    elif isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        yield annotation, None
    for argument in get_args(annotation):
        yield from members(argument)


TEXTS = sorted({(name, tuple(chosen.items())) for name, chosen in texts(JobConfig.whole())})


def test_every_kind_of_address_is_among_the_settings():
    names = {name for name, _ in TEXTS}
    assert names >= {
        "workspace", "tracking_uri", "zone_table", "cluster.address", "points.path", "parcels.path", "imagery.folder",
        "imagery.url", "imagery.endpoint", "zone_selection.region_table", "zone_selection.outline",
        "zone_selection.worldcover.path", "zone_selection.worldcover.url", "zone_selection.worldcover.endpoint",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "chosen"), TEXTS, ids=[f"{name}-{chosen[-1:]}" for name, chosen in TEXTS])
def test_no_setting_of_a_job_takes_a_secret(tmp_path, name, chosen):
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"name": "a", "workspace": str(tmp_path / "work")}))
    overrides = [f"{key}={value}" for key, value in chosen]
    for bad in (f"https://ada:{SECRET}@host/x", f"s3://bucket/x?sig={SECRET}", f"https://h/?a=1&%70assword={SECRET}"):
        for value in (f"'{bad}'", f"['{bad}']"):
            with pytest.raises(ConfigError) as error:
                load_settings(JobConfig, file, [*overrides, f"{name}={value}"])
            assert SECRET not in str(error.value)
            if value[0] != "[":
                assert f"'{name}': an address must not hold credentials" in str(error.value)


def test_nor_does_the_address_of_the_job_file():
    with pytest.raises(ConfigError, match="must not hold credentials") as error:
        load_settings(JobConfig, f"s3://AKIA:{SECRET}@bucket/job.yaml")
    assert SECRET not in str(error.value)


def test_nor_does_a_path_object():
    with pytest.raises(ValueError, match="must not hold credentials"):
        as_input(UPath(f"s3://AKIA:{SECRET}@bucket/x"))


def test_errors_of_the_class_itself_show_no_secret_either():
    with pytest.raises(ValidationError) as error:
        JobConfig(name="a", workspace="/data/x", tracking_uri=f"https://{SECRET}@runs.example")
    assert SECRET not in str(error.value)
