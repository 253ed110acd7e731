"""Loading: every line is in Central afterwards, or listed."""

import asyncio
import gzip
from pathlib import Path

import pytest

from central_stub.loading import LoadFailed, UnreadableFile, load
from central_stub.server import Running
from central_stub.settings import Settings

JSON_LINES = """\
{"productId":"A","available":3,"price":1.5,"x":[1]}
not json

[1]
{"productId":"","available":1}
{"productId":"é/","available":0}
{"productId":"A","available":4}
"""

CSV = '''\
productId,available,price,name,barcode
A,3,1.5,"Lamp, ""big""",00123
B,many,1,n,1
C,1,2,,
D,1,2,n,1,extra
'''


@pytest.fixture
def either(settings: Settings) -> Settings:
    """In memory alone: the tests look into the ledger."""
    return settings


@pytest.fixture(params=["", ".gz"])
def ending(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


async def test_json_lines_are_loaded_and_bad_ones_listed(
    central: Running, tmp_path: Path, ending: str
) -> None:
    """Line numbers from 1; a second line of one product sets it."""
    path = written(tmp_path / f"c.jsonl{ending}", JSON_LINES)

    loaded = await asyncio.to_thread(load, path, url=central.url, admin_key="admin-demo")

    assert (2, 1, [2, 4, 5]) == (
        loaded.created,
        loaded.changed,
        [number for number, _ in loaded.bad_lines],
    )
    assert {"available": 4, "x": [1], "version": 2}.items() <= (
        central.ledger.read("A") or {}
    ).items()
    assert central.ledger.read("é/") is not None


async def test_csv_is_loaded_with_all_columns(
    central: Running, tmp_path: Path, ending: str
) -> None:
    """available whole, price a number, the rest text; empty cells are left out."""
    path = written(tmp_path / f"c.csv{ending}", CSV)

    loaded = await asyncio.to_thread(load, path, url=central.url, admin_key="admin-demo")

    assert [3, 5] == [number for number, _ in loaded.bad_lines]
    row = central.ledger.read("A") or {}
    assert {"available": 3, "price": 1.5, "name": 'Lamp, "big"', "barcode": "00123"} == {
        name: row[name] for name in ("available", "price", "name", "barcode")
    }
    assert "name" not in (central.ledger.read("C") or {})


async def test_a_second_load_sets_what_the_first_created(central: Running, tmp_path: Path) -> None:
    """Nothing is created twice."""
    path = written(tmp_path / "c.jsonl", '{"productId":"A","available":1}\n')

    first = await asyncio.to_thread(load, path, url=central.url, admin_key="admin-demo")
    second = await asyncio.to_thread(load, path, url=central.url, admin_key="admin-demo")

    assert ((1, 0), (0, 1)) == ((first.created, first.changed), (second.created, second.changed))


async def test_a_load_waits_for_a_central_that_is_away(central: Running, tmp_path: Path) -> None:
    """A batch that was not answered is sent again."""
    path = written(tmp_path / "c.jsonl", '{"productId":"A"}\n')
    await central.kill()
    task = asyncio.create_task(
        asyncio.to_thread(load, path, url=central.url, admin_key="admin-demo")
    )
    await central.start()

    assert 1 == (await task).created


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
async def test_lines_that_are_not_utf_8_are_listed(
    central: Running, tmp_path: Path, name: str
) -> None:
    """The others are loaded."""
    lines = {
        "c.jsonl": b'{"productId":"A"}\n{"productId":"\xff"}\n{"productId":"B"}\n',
        "c.csv": b"\xef\xbb\xbfproductId\n\xff\nA\nB\n",
    }
    path = tmp_path / name
    path.write_bytes(lines[name])

    loaded = await asyncio.to_thread(load, path, url=central.url, admin_key="admin-demo")

    assert (2, [2]) == (loaded.created, [number for number, _ in loaded.bad_lines])


async def test_a_wrong_key_ends_the_load(central: Running, tmp_path: Path) -> None:
    """With Central's answer."""
    path = written(tmp_path / "c.jsonl", '{"productId":"A"}\n')

    with pytest.raises(LoadFailed, match="answered 401"):
        await asyncio.to_thread(load, path, url=central.url, admin_key="wrong")


@pytest.mark.parametrize("content", [None, b"\x1f\x8b\x08cut", b"plain"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Missing, cut short, or of another type than its name says."""
    path = tmp_path / "c.jsonl.gz"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UnreadableFile, match=r"c\.jsonl\.gz cannot be read"):
        load(path, url="http://127.0.0.1:1", admin_key="k")
