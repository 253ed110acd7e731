"""Readers of changes note each message once, and how long it took."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from benchmarks.harness import stream_readers
from benchmarks.harness.noting_store import Notes, visible_moments
from benchmarks.harness.observers import STAMP
from benchmarks.harness.rows import row
from benchmarks.harness.stream_readers import Readers
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.observer import ChangeSource, Origin, VisibleChange


def event(stamp: float) -> bytes:
    return b"id: 7f3a:1\nevent: product\ndata: %b\n\n" % orjson.dumps(row(1) | {STAMP: stamp})


@pytest.fixture
def ends() -> Iterator[list[socket.socket]]:
    """The server's ends of two connections, then the readers'."""
    pairs = [socket.socketpair() for _ in range(2)]
    both = [end for side in zip(*pairs, strict=True) for end in side]
    yield both
    for end in both:
        end.close()


def test_each_message_of_each_reader_is_noted_once(
    ends: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that arrive together, too, and events without a row are none."""
    monkeypatch.setattr(stream_readers, "PATIENCE_SECONDS", 0.0)
    readers = Readers(ends[2:])

    ends[0].sendall(event(1.5) + b'event: position\ndata: {"offset":7}\n\n' + event(2.5))
    ends[1].sendall(event(1.5))
    readers.read(changes=3)

    assert [1.5, 1.5, 2.5] == sorted(readers.sent)
    assert len(readers.sent) == len(readers.received)


@pytest.mark.parametrize("cut", [20, 40, 60, 100, -30, -3])
def test_a_message_that_is_cut_in_two_is_noted_when_it_is_whole(
    ends: list[socket.socket], monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Wherever it is cut."""
    monkeypatch.setattr(stream_readers, "PATIENCE_SECONDS", 0.0)
    readers = Readers(ends[2:])

    for piece in (event(1234.5)[:cut], event(1234.5)[cut:]):
        ends[0].sendall(piece)
        readers.read(changes=1)

    assert [1234.5] == readers.sent.tolist()


def test_a_change_is_noted_when_reads_show_it(tmp_path: Path) -> None:
    """By the moment that its row carries; a deletion carries none."""
    file = io.BytesIO()
    rows = {"PROD-1": orjson.dumps(row(1) | {STAMP: 1.5}), "PROD-2": None, "PROD-3": b"{}"}
    Notes(file).changed(Catalogue(), VisibleChange(Origin(ChangeSource.EVENT), rows, {}))
    (tmp_path / "notes").write_bytes(file.getvalue())

    assert [1.5] == list(visible_moments(tmp_path / "notes"))
