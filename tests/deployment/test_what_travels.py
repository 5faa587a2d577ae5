"""What Ray takes along with a job: all of the code, no data and no secret. Asked of Ray's own packaging, without a cluster."""

import logging
import subprocess

import pytest
from ray._private.runtime_env.packaging import _dir_travel

from tests.deployment.pinned import ROOT

SECRETS = [
    "crops-412307-1b9e4c0d77aa.json",  # as Google's console names a key
    "application_default_credentials.json", "keys/client_secret_77.json", "sa.json", "ee-private-key.json",
    ".env", ".env.production", "mlflow/.env", "mlflow.env.secret", "server.pem", "tls/server.key", "store.p12", "cert.pfx",
    "keystore.jks", "aws.ppk", "id_rsa", ".ssh/config", "id_ed25519_work", ".netrc", ".pgpass", ".aws/config",
    ".config/gcloud/access.db", ".kube/config", "kubeconfig.yaml", ".azure/x", ".git-credentials", ".pypirc", ".boto",
    "credentials", "cropray_token", "auth_token", "passwords.txt", "my-secrets.yaml", ".docker/config",
]  # fmt: skip


def travels(folder):
    found = set()
    _dir_travel(folder, [], found.add, include_gitignore=True, logger=logging.getLogger("quiet"))
    return {path.relative_to(folder).as_posix() for path in found if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    for name in (".rayignore", ".gitignore"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("below", ["", "ray_jobs/configs/"])
def test_a_secret_stays_here(folder, name, below):
    path = folder / below / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert travels(folder) <= {".rayignore", ".gitignore"}


def test_all_of_the_code_travels(folder):
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "cropray", "ray_jobs", "pyproject.toml"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    code = {name for name in listed if (ROOT / name).is_file()}
    for name in code:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert code <= travels(folder)
    assert "cropray/data/legend.csv" in code
