"""nginx with every product, and every page of 50, as a file; it checks the key.

Its configuration is the fastest for small files: in memory, each held open if the machine allows
that many, and without sendfile, which needs a second system call for a head and a body that fit in
one.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import orjson

from benchmarks.harness.processes import KEY, serving
from benchmarks.harness.rows import PAGE_ROWS, page_body, product_id, row
from tests.harness.processes import Program, free_port

MISSING = "nginx is not installed (Debian: apt-get install nginx-light)"

FILE_CACHE = "open_file_cache max={files} inactive=1h; open_file_cache_valid 1h;"
SPARE_FILES = 2_048
"""Descriptors left to connections; without them nginx answers 500 once its cache has the others."""

CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/json;
    sendfile off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    {file_cache}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {folder}/files;
        if ($http_x_api_key != "{key}") {{ return 401; }}
    }}
}}
"""


def is_installed() -> bool:
    return shutil.which("nginx") is not None


def write_files(files: Path, products: int) -> None:
    inventory = files / "v1" / "store" / "inventory"
    inventory.mkdir(parents=True)
    for number in range(products):
        (inventory / product_id(number)).write_bytes(orjson.dumps(row(number)))
    pages = files / "pages"
    pages.mkdir()
    for offset in range(0, products, PAGE_ROWS):
        (pages / str(offset)).write_bytes(page_body(offset, products))


@asynccontextmanager
async def nginx(products: int) -> AsyncIterator[Program]:
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="store-cache-bench-", dir=in_memory) as name:
        folder = Path(name)
        port = free_port()
        write_files(folder / "files", products)
        (folder / "nginx.conf").write_text(configuration(folder, port, products), encoding="utf-8")
        async with serving(
            ("nginx", "-p", name, "-c", str(folder / "nginx.conf")),
            port=port,
            path="/pages/0",
            log=folder / "nginx.log",
        ) as server:
            yield server


def configuration(folder: Path, port: int, products: int) -> str:
    return CONFIGURATION.format(
        folder=folder,
        port=port,
        key=KEY,
        user="user root;" if os.geteuid() == 0 else "",  # its own user could not read the folder
        file_cache=FILE_CACHE.format(files=files_of(products)) if holds_all(products) else "",
    )


def files_of(products: int) -> int:
    return products + products // PAGE_ROWS


def holds_all(products: int) -> bool:
    """Whether nginx may hold every file open; holding only a part is slower than holding none."""
    wanted = files_of(products) + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with suppress(ValueError):  # more than the machine allows, which is what is asked here
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= wanted
