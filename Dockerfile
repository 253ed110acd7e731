# An image with both programs: the store (the default) and the stub of Central.

ARG PYTHON=3.13

# --- build: the wheel and the locked dependencies, in a virtual environment ---
FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build

# Dependencies first: they change less often than the code, so their layer is reused. The extras for
# gRPC and tracing are among them; they cost nothing until they are configured.
COPY requirements-image.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/store-cache \
 && pip --python /opt/store-cache install --require-hashes --only-binary :all: -r requirements-image.lock \
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
EXPOSE 8083 8084
STOPSIGNAL SIGTERM

# Healthy means that it answers: a missing Central or catalogue is no reason to restart. The image has
# no curl; a bare Python (-I -S) starts in two thirds of the time. Whose certificate it shows does not
# matter here.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import os, socket; s = socket.create_connection(('127.0.0.1', int(os.environ['PORT'])), 4); s = __import__('ssl')._create_unverified_context().wrap_socket(s) if os.environ.get('TLS_CERT_FILE') else s; s.sendall(b'GET /health HTTP/1.0\\r\\n\\r\\n'); raise SystemExit(b' 200 ' not in s.recv(64))"]

CMD ["store-cache", "serve"]
