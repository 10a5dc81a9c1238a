# What the image is made of: any image with Debian's or Docker's own Python 3.11 or newer and its venv module.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
# full: daemon, platform, workers. slim: without the platform's libraries, for a daemon of another server.
ARG VARIANT=full
# Where there is no package index: a mounted folder of wheels, by PIP_NO_INDEX=1 and PIP_FIND_LINKS=/folder.
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
# Also the time in every file of the wheel, so that the same commit gives the same files.
ARG SOURCE_DATE_EPOCH=1700000000
WORKDIR /build
COPY requirements/run.lock requirements/run-slim.lock requirements/build.lock requirements/
RUN python3 -m venv /opt/watcher && python3 -m venv /opt/build \
    && ln -s run.lock requirements/run-full.lock \
    && /opt/watcher/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-compile \
        --require-hashes --no-deps --only-binary=:all: --requirement "requirements/run-${VARIANT}.lock" \
    && /opt/build/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --no-deps --only-binary=:all: --requirement requirements/build.lock
COPY pyproject.toml README.md ./
COPY migrations migrations
COPY watcher watcher
COPY deploy/collect_root.py deploy/
# pip leaves last: nothing is installed into a running container. The compiled modules bear no time, but a hash.
RUN /opt/build/bin/python -m hatchling build --target wheel --directory dist \
    && /opt/watcher/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-compile --no-deps \
        --no-index dist/*.whl \
    && /opt/watcher/bin/python -m pip uninstall --yes --quiet pip setuptools \
    && /opt/build/bin/cyclonedx-py environment --output-reproducible --of JSON -o /opt/watcher/sbom.cdx.json \
        /opt/watcher/bin/python \
    && python3 deploy/collect_root.py --environment /opt/watcher --root /rootfs \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /rootfs /rootfs/opt/watcher/lib \
    && echo 'watcher:x:10001:10001:Datasource Watcher:/data:/nonexistent' >>/rootfs/etc/passwd \
    && echo 'watcher:x:10001:' >>/rootfs/etc/group \
    && install --directory --mode=0750 /data

FROM scratch
ARG VERSION=0.1.0
ARG VARIANT=full
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Datasource Watcher" \
      org.opencontainers.image.description="Registers, thumbnails, embeds and picks every image that arrives in a datasource" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="scratch" \
      watcher.variant="${VARIANT}" \
      watcher.sbom="/opt/watcher/sbom.cdx.json"
COPY --from=builder /rootfs/ /
COPY --from=builder --chown=10001:10001 /data /data
ENV PATH=/opt/watcher/bin \
    LANG=C.UTF-8 \
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
    CMD ["watcher", "health"]
ENTRYPOINT ["watcher"]
CMD ["run"]
