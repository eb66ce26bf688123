# The services: ingest, API, aggregator, migrations. No compiler, no tests, no embedded engine or broker in it.
FROM python:3.12.12-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/insights
COPY requirements-runtime.lock ./
RUN /opt/insights/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-runtime.lock
# What builds the wheel stays behind in this stage.
COPY requirements-build.lock pyproject.toml README.md ./
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-build.lock
COPY aggregator aggregator
COPY api api
COPY cli cli
COPY clients/python clients/python
COPY ingest ingest
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python . \
 && /opt/insights/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /wheels/*.whl

FROM python:3.12.12-slim-bookworm
RUN groupadd --gid 10001 insights && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin insights
COPY --from=build /opt/insights /opt/insights
COPY deploy/kafka/topics.yaml /etc/insights/topics.yaml
ENV PATH=/opt/insights/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
EXPOSE 8080 9464
ENTRYPOINT ["insights"]
CMD ["--help"]
