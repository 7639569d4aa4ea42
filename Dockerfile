# Two images from one file: the forecast server (the default, the last stage) and, with
# `--target mlflow`, the MLflow tracking server. Any base with Python 3.11 or newer as `python3`,
# venv and pip will do.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# --- What both builders share -----------------------------------------------------------------
FROM ${BASE_IMAGE} AS builder
# Where pip looks, for a network with its own package index or a folder of wheels, e.g.
# --build-arg PIP_FIND_LINKS=... ENV hands them on to the stages below; pip ignores empty ones.
ARG PIP_CERT
ARG PIP_DEFAULT_TIMEOUT
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_INDEX_URL
ENV PIP_CERT=$PIP_CERT \
    PIP_DEFAULT_TIMEOUT=$PIP_DEFAULT_TIMEOUT \
    PIP_EXTRA_INDEX_URL=$PIP_EXTRA_INDEX_URL \
    PIP_FIND_LINKS=$PIP_FIND_LINKS \
    PIP_INDEX_URL=$PIP_INDEX_URL \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# --without-pip: pip stays behind in this stage and fills the environment from outside.
RUN python3 -m venv --without-pip /app
COPY constraints.txt ./

FROM builder AS server-builder
# The dependencies alone first, for an empty project: this layer lasts until they change.
COPY pyproject.toml ./
RUN mkdir statecast forecast service pipelines \
    && touch README.md LICENSE statecast/__init__.py forecast/__init__.py \
        service/__init__.py pipelines/__init__.py \
    && python3 -m pip --python /app/bin/python install -qq -c constraints.txt '.[server,postgres]'
COPY README.md LICENSE ./
COPY statecast statecast
COPY forecast forecast
COPY service service
COPY pipelines pipelines
RUN python3 -m pip --python /app/bin/python install -qq --no-deps --force-reinstall .

FROM builder AS mlflow-builder
RUN python3 -m pip --python /app/bin/python install -qq -c constraints.txt mlflow 'psycopg[binary]'

# --- The MLflow tracking server and model registry --------------------------------------------
FROM ${BASE_IMAGE} AS mlflow
ENV PATH=/app/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    MLFLOW_HOST=0.0.0.0 MLFLOW_PORT=5000 MLFLOW_WORKERS=1 MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    MLFLOW_BACKEND_STORE_URI=sqlite:////data/mlflow.db \
    MLFLOW_ARTIFACTS_DESTINATION=/data/artifacts
RUN mkdir /data && chown 10001:10001 /data
COPY --from=mlflow-builder /app /app
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 5000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['MLFLOW_PORT']), timeout=4); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]
CMD ["mlflow", "server"]

# --- The forecast server ----------------------------------------------------------------------
FROM ${BASE_IMAGE} AS server
# STATECAST_MODEL says which model (a bundle directory or models:/name@alias), STATECAST_API_KEYS
# who may ask: without keys the server refuses to listen beyond loopback.
ENV PATH=/app/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    STATECAST_HOST=0.0.0.0 STATECAST_PORT=8000 STATECAST_DATA_DIR=/data
RUN mkdir /data && chown 10001:10001 /data
COPY --from=server-builder /app /app
WORKDIR /data
USER 10001:10001
# The observation log, and copies of registered models. All else may be read-only, with a tmpfs on
# /tmp.
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['STATECAST_PORT']), timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
CMD ["statecast", "serve"]
