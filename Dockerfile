# Built in two stages: the second has no compiler, no pip cache and no root.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/aigate
COPY requirements.lock .
RUN /opt/aigate/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY aigate aigate
RUN /opt/aigate/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
COPY --from=build /opt/aigate /opt/aigate
RUN useradd --system --uid 10001 --no-create-home aigate && install -d -m 0700 -o aigate -g aigate /data
ENV PATH=/opt/aigate/bin:$PATH \
    AIGATE_SERVER_HOST=0.0.0.0 \
    AIGATE_SERVER_DATA_DIR=/data
USER aigate
VOLUME /data
EXPOSE 4000
# The drain takes up to server.drain_s (30 s) and the keeper's shipping after it: give `docker stop` 60 s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:4000/readyz', timeout=2)"]
ENTRYPOINT ["aigate"]
CMD ["serve"]
