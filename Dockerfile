# An image with both programs: the store (the default) and the stub of Central.

ARG PYTHON=3.13

# --- build: the wheel and the locked dependencies, in a virtual environment ---
FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build

# Dependencies first: they change less often than the code, so their layer is reused.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/store-cache \
 && pip --python /opt/store-cache install --require-hashes --only-binary :all: -r requirements.lock \
 && pip install --require-hashes --only-binary :all: -r requirements-build.lock

COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/store-cache install --no-deps dist/*.whl

# --- the image: Python, the virtual environment, an unprivileged user ---
FROM python:${PYTHON}-slim
RUN groupadd --system --gid 10001 store \
 && useradd --system --uid 10001 --gid store --home-dir /app --shell /usr/sbin/nologin store \
 && install -d -m 0755 /app \
 && install -d -m 0700 -o store -g store /app/data
COPY --from=build /opt/store-cache /opt/store-cache

ENV PATH=/opt/store-cache/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PORT=8083 \
    DATA_DIR=/app/data
WORKDIR /app
USER 10001:10001
VOLUME /app/data
EXPOSE 8083
STOPSIGNAL SIGTERM

# Healthy means that it answers: a missing Central or catalogue is no reason to restart.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ['PORT']}/health\", timeout=4)"]

CMD ["store-cache", "serve"]
