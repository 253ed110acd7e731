"""nginx with every product, and every page of 50, as a file; the key checked.

Knows: the configuration that serves small files fastest: from memory, each held open, and without
sendfile, which takes a second system call where head and body would go in one. Refuses to know:
what is measured.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from benchmarks.processes import KEY, Server, free_port, serving
from benchmarks.rows import PAGE_ROWS, page_body, product_id, row

MISSING = "nginx is not installed (Debian: apt-get install nginx-light)"

ENOUGH_FILES = 250_000
"""Every file held open; who is not root has only as many as the machine allows, and is slower."""

SPARE_FILES = 2_048
"""Descriptors left to connections; without them nginx answers 500 once its cache has the others."""

CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {open_files};
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/json;
    sendfile off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    open_file_cache max={cached_files} inactive=1h;
    open_file_cache_valid 1h;
    open_file_cache_min_uses 1;
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
async def nginx(products: int) -> AsyncIterator[Server]:
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="store-cache-bench-", dir=in_memory) as name:
        folder = Path(name)
        port = free_port()
        write_files(folder / "files", products)
        (folder / "nginx.conf").write_text(configuration(folder, port), encoding="utf-8")
        async with serving(
            ("nginx", "-p", name, "-c", str(folder / "nginx.conf")),
            port=port,
            path="/pages/0",
            log=folder / "nginx.log",
        ) as server:
            yield server


def configuration(folder: Path, port: int) -> str:
    is_root = os.geteuid() == 0
    open_files = ENOUGH_FILES if is_root else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return CONFIGURATION.format(
        folder=folder,
        port=port,
        key=KEY,
        user="user root;" if is_root else "",  # its own user could not read the folder
        open_files=open_files,
        cached_files=min(ENOUGH_FILES, open_files) - SPARE_FILES,
    )
