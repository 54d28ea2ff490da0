# One image for every role, with `scorehouse` as its command; `--target api` is a smaller one, which has no scikit-learn.
#
#     docker build --tag scorehouse .
#     docker build --target api --tag scorehouse-api .

ARG PYTHON=python:3.13-slim-bookworm

# ---- what is installed: hash-locked, into a virtual environment that is copied as a whole
FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_QUIET=1
RUN python -m venv /opt/scorehouse
WORKDIR /src

FROM build AS build-api
COPY requirements-api.lock ./
RUN /opt/scorehouse/bin/pip install --no-deps --require-hashes -r requirements-api.lock
COPY . .
RUN /opt/scorehouse/bin/pip install --no-deps --no-build-isolation --no-index ./client . \
    && /opt/scorehouse/bin/pip check \
    && /opt/scorehouse/bin/pip uninstall --yes setuptools pip

FROM build AS build-full
COPY requirements-image.lock ./
RUN /opt/scorehouse/bin/pip install --no-deps --require-hashes -r requirements-image.lock
COPY . .
RUN /opt/scorehouse/bin/pip install --no-deps --no-build-isolation --no-index ./client . \
    && /opt/scorehouse/bin/pip check \
    && /opt/scorehouse/bin/pip uninstall --yes setuptools pip

# ---- what runs: nobody's account, nothing to compile with, nothing to write to but the data folder
FROM ${PYTHON} AS base
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Scorehouse" \
      org.opencontainers.image.description="Durable, queue-based batch scoring with audits" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 scorehouse \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/scorehouse --shell /usr/sbin/nologin scorehouse \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/scorehouse /srv/artefacts
ENV PATH=/opt/scorehouse/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SCOREHOUSE_DATA_DIR=/var/lib/scorehouse \
    SCOREHOUSE_ARTEFACT_URL=file:///srv/artefacts \
    SCOREHOUSE_API_HOST=0.0.0.0 \
    SCOREHOUSE_FLOWER_HOST=0.0.0.0
WORKDIR /var/lib/scorehouse
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# The role's own check stands in docker-compose.yml; an image that is started with no more than its name is an API.
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 CMD ["scorehouse", "healthcheck", "api"]
ENTRYPOINT ["scorehouse"]
CMD ["api"]

FROM base AS api
COPY --from=build-api /opt/scorehouse /opt/scorehouse

FROM base AS full
COPY --from=build-full /opt/scorehouse /opt/scorehouse
