"""What a campaign or benchmark leaves behind when it is ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

COMMAND = """
import asyncio
from tests.harness.commands import run_to_end

async def campaign():
    child = await asyncio.create_subprocess_exec("sleep", "600")
    print(child.pid, flush=True)
    try:
        await child.wait()
    finally:
        child.kill()
        await child.wait()

run_to_end(campaign())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_what_a_command_has_started_ends_with_it(number: signal.Signals) -> None:
    pipe = asyncio.subprocess.PIPE
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COMMAND), stdout=pipe, stderr=pipe
    )
    assert command.stdout is not None
    child = int(await command.stdout.readline())
    command.send_signal(number)
    await command.communicate()

    assert command.returncode == -signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
