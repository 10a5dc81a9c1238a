# Both stages stand on one base, because the environment of the first runs with the Python of the second.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
# Where there is no package index: a mounted folder of wheels, by PIP_NO_INDEX=1 and PIP_FIND_LINKS=/folder.
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /build
RUN python3 -m venv /opt/watcher && python3 -m venv /opt/build
COPY requirements/run.lock requirements/build.lock requirements/
RUN /opt/watcher/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --no-deps --only-binary=:all: --requirement requirements/run.lock \
    && /opt/build/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --no-deps --only-binary=:all: --requirement requirements/build.lock
COPY pyproject.toml README.md ./
COPY migrations migrations
COPY watcher watcher
# pip leaves last: nothing is installed into a running container.
RUN /opt/build/bin/python -m hatchling build --target wheel --directory dist \
    && /opt/watcher/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --no-index dist/*.whl \
    && /opt/watcher/bin/python -m pip uninstall --yes --quiet pip setuptools

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Datasource Watcher" \
      org.opencontainers.image.description="Registers, thumbnails, embeds and picks every image that arrives in a datasource" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=builder /opt/watcher /opt/watcher
RUN install --directory --owner=10001 --group=10001 --mode=0750 /data
ENV PATH=/opt/watcher/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    WATCHER_DATA_DIR=/data \
    WATCHER_HTTP__HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('WATCHER_HTTP__PORT', '8080')), timeout=5); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["watcher"]
CMD ["run"]
