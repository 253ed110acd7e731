"""Switches and faults as they are read from the database.

While processes are replaced one by one, a newer release may have stored what this one does not
know. That is left out, so that both go on.
"""

import logging
from collections.abc import Iterable

import orjson
from psycopg.rows import TupleRow
from pydantic import TypeAdapter, ValidationError

from central_stub.faults import AnyFault, Fault, SetFault
from central_stub.switches import Switches

_FAULT: TypeAdapter[Fault] = TypeAdapter(AnyFault)

logger = logging.getLogger("central_stub.postgres")


def read_switches(stored: bytes) -> Switches:
    """Return the stored switches. A name that is unknown is left out, and a switch with a value
    that is unknown has its default."""
    document = orjson.loads(stored)
    try:
        return Switches.model_validate(document)
    except ValidationError as error:
        unknown = [each["loc"] for each in error.errors()]
    names = ", ".join(".".join(map(str, where)) for where in unknown)
    logger.warning("switches of another release of central-stub are left out: %s", names)
    for name, *index in reversed(unknown):  # the last element of a list first
        if index:
            del document[name][index[0]]
        else:
            del document[name]
    return Switches.model_validate(document)


def read_faults(rows: Iterable[TupleRow]) -> list[SetFault]:
    """Return the stored faults, of rows of number, fault and count, but those of unknown kinds."""
    faults: list[SetFault] = []
    for number, fault, struck in rows:
        try:
            faults.append(SetFault(number, _FAULT.validate_json(fault), struck))
        except ValidationError:
            logger.warning("fault %d of another release of central-stub is left out", number)
    return faults
