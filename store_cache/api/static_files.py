"""Pages inside the package: read once, then answered from memory, without a key.

Only the names read at the start exist, so that no path can lead anywhere else. Each answer carries
a Content-Security-Policy under which a page loads nothing but the store's own files and runs no
script or style written into it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from store_cache.api.answers import tagged_answer
from store_cache.api.problems import NotFound

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
"""What is served, by the end of its name; other files of the folder (licences) are not."""

STRICT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class StaticFile:
    content: bytes
    content_type: str
    etag: str


class StaticFiles:
    """The files below one folder of the package, by their path in it."""

    def __init__(self, folder: Path, *, policy: str = STRICT_POLICY) -> None:
        self._policy = policy
        self._files = {
            path.relative_to(folder).as_posix(): _file(path.read_bytes(), TYPES[path.suffix])
            for path in sorted(folder.rglob("*"))
            if path.suffix in TYPES
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    def replace(self, name: str, old: bytes, new: bytes) -> None:
        """Change a part of a file, which has it once."""
        file = self._files[name]
        assert file.content.count(old) == 1, f"{name} does not have {old!r} once"
        self._files[name] = _file(file.content.replace(old, new), file.content_type)

    def answer(self, request: web.Request, name: str) -> web.Response:
        """Return the file, or 304 if the caller holds it. Raises NotFound."""
        file = self._files.get(name)
        if file is None:
            raise NotFound(f"There is no page {request.path}")
        headers = {
            "Cache-Control": "no-cache",  # a store that was updated has other files
            "Content-Security-Policy": self._policy,
            "Referrer-Policy": "no-referrer",
        }
        return tagged_answer(request, file.content, file.etag, file.content_type, headers)


def _file(content: bytes, content_type: str) -> StaticFile:
    digest = hashlib.sha256(content).hexdigest()[:24]
    return StaticFile(content, content_type, f'"{digest}"')
