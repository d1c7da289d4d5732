# The file of all images. SERVICE selects one: bridge, driver_events, driver_api, tracking_api,
# webhooks, simulators or stack. Each image contains only the dependencies of its own extra.
#
#   docker build --build-arg SERVICE=bridge -t doorstep/bridge .
#
# Builds for amd64 and arm64. Images contain no secrets and do not run as root.

# .env has the same two; a build elsewhere can pass others.
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3
ARG NODE_IMAGE=debian:bookworm-slim@sha256:7b140f374b289a7c2befc338f42ebe6441b7ea838a042bbd5acbfca6ec875818

# --- the web pages of tracking_api, bundled ---------------------------
FROM ${NODE_IMAGE} AS web
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates nodejs npm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-audit --no-fund  # checks the hashes of package-lock.json
COPY web/ ./
RUN npm run build && rm -rf node_modules

# --- the service's virtual environment ------------------------------------------------------
FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Every package's hash is checked here, for all images in one layer. Later steps install from this
# folder only, the build backend included.
COPY requirements/runtime.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/doorstep \
 && /opt/doorstep/bin/pip download -q --require-hashes -r requirements/runtime.txt -d /wheels
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
# Dependencies first, shared ones before those of one service: these layers are rebuilt only when
# pyproject.toml or the pins change.
COPY pyproject.toml LICENSE ./
RUN touch README.md && /opt/doorstep/bin/pip install -q .
ARG SERVICE
RUN test -n "${SERVICE}" || { echo "missing: --build-arg SERVICE=bridge"; exit 1; } \
 && /opt/doorstep/bin/pip install -q ".[$(echo "${SERVICE}" | tr _ -)]"
COPY . .
COPY --from=web /src/web/dist ./web/dist
RUN /opt/doorstep/bin/pip install -q --no-deps --force-reinstall . \
 && /opt/doorstep/bin/pip check

# --- the image ------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 doorstep \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent doorstep \
 && install -d -o doorstep -g doorstep /var/lib/doorstep \
 && install -d -o 1883 -g 1883 /mosquitto/config /mosquitto/authority /mosquitto/tls  # of new volumes
ARG SERVICE
COPY --from=build /opt/doorstep /opt/doorstep
ENV PATH=/opt/doorstep/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SERVICE=${SERVICE}
USER 10001:10001
WORKDIR /var/lib/doorstep
# Requests the service's own /readyz. docker-compose.yml repeats the check, because images in the
# OCI format have none.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "doorstep.healthcheck"]
CMD ["sh", "-c", "exec python -m \"$SERVICE\""]
