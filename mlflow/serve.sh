#!/bin/sh
# Starts the tracking server: the one place that says how. All values come from the environment, secrets too, so that
# none stands in the list of processes.
set -eu

need() { eval "value=\${$1:-}"; [ -n "$value" ] || { echo "serve.sh: $1 is not set: $2; see mlflow/README.md" >&2; exit 2; }; }
need MLFLOW_BACKEND_STORE_URI "postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
need MLFLOW_ARTIFACTS_DESTINATION "s3://BUCKET/FOLDER"
need MLFLOW_SERVER_ALLOWED_HOSTS "names under which clients reach the server, with ports, comma-separated"
need MLFLOW_FLASK_SERVER_SECRET_KEY "any long random text; the same for all replicas"
need MLFLOW_AUTH_ADMIN_PASSWORD "password of the first user, 'admin'; at least 12 characters"

# Users and permissions lie in the same database as the runs. MLflow takes that address from a file only, where a
# percent sign has to be doubled.
umask 077
MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
export MLFLOW_AUTH_CONFIG_PATH
cat > "$MLFLOW_AUTH_CONFIG_PATH" <<SETTINGS
[mlflow]
database_uri = $(printf %s "$MLFLOW_BACKEND_STORE_URI" | sed 's/%/%%/g')
default_permission = READ
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
SETTINGS

# Compose passes an empty address on, which MLflow would take for one: AWS is meant where there is none.
[ -n "${MLFLOW_S3_ENDPOINT_URL:-}" ] || unset MLFLOW_S3_ENDPOINT_URL
export MLFLOW_DISABLE_TELEMETRY=true
exec mlflow server --app-name basic-auth --serve-artifacts \
  --host "${MLFLOW_HOST:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" --workers "${MLFLOW_WORKERS:-2}"
