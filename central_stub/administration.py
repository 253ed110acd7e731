"""The admin calls: products, faults, switches, backup, restore, wipe, and the fleet.

API keys are checked before, in `central`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from central_stub.backend import Backend
from central_stub.catalogue import Row
from central_stub.faults import AnyFault, Fault
from central_stub.fleet.fleet import Fleet
from central_stub.keys import Answer
from central_stub.ledger import UNDOABLE, Part
from central_stub.limiter import Limiter
from central_stub.rules import Creation, Deletion, Operation, Setting
from central_stub.switches import Feature, Switches, WireModel
from central_stub.wire import Detail, Refused, Reply, Request, invalid, json_reply, parse_json

Model = TypeVar("Model")

LONGEST_ID = 512
DEEPEST_ATTRIBUTE = 32
LARGEST_EXACT = 2**53 - 1
"""RFC 8785 has no larger whole numbers, so rows with them would have no digest."""

GenerationName = Annotated[str, Field(pattern=r"^[!-~]{1,64}$")]
"""It becomes a header, so it must not contain what ends one."""


class Action(BaseModel):
    """A change of the ledger that is made once, at once."""

    model_config = WireModel


class ForgetLog(Action):
    """Lose all events: older offsets are gone, new ones continue."""

    kind: Literal["forget_log"]


class ForgetKeys(Action):
    """Forget every idempotency key, as a restart of a deployed Central does."""

    kind: Literal["forget_keys"]


class NewGeneration(Action):
    """A new feed from offset 1, the products as they are."""

    kind: Literal["new_generation"]
    generation: GenerationName | None = None


class Skip(Action):
    """The next `count` events never appear; their offsets stay gaps."""

    kind: Literal["skip"]
    count: Annotated[int, Field(ge=1)] = 1


class Lie(Action):
    """Change a product without a new version or event; `attributes` null removes it."""

    kind: Literal["lie"]
    product_id: Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
    attributes: dict[str, Any] | None


class Crash(Action):
    """End, and begin again after `seconds` without the last entries of the log or of the stock."""

    kind: Literal["crash"]
    loses: Part
    count: Annotated[int, Field(ge=1, le=UNDOABLE)] = 1
    seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0


class Replacement(BaseModel):
    """The body of `wipe`, and a part of that of `restore`."""

    model_config = WireModel

    keep_generation: bool = False


class Backup(BaseModel):
    """The answer of `GET /v1/admin/backup`. Rows and events are not checked."""

    model_config = WireModel

    generation: GenerationName
    first: Annotated[int, Field(ge=1)]
    next: Annotated[int, Field(ge=1)]
    products: list[dict[str, Any]]
    events: list[dict[str, Any]]
    unnumbered: list[tuple[int, dict[str, Any], float]]
    sequence: int
    keys: list[tuple[str, float, dict[str, Any]]]


class Restoration(Replacement):
    backup: Backup


AnyAction = ForgetLog | ForgetKeys | NewGeneration | Skip | Lie | Crash
_COMMANDS: TypeAdapter[Fault | Action] = TypeAdapter(
    Annotated[AnyFault | AnyAction, Field(discriminator="kind")]
)


class Administration:
    """Admin calls on one ledger. `new_name` returns a new name for a generation."""

    def __init__(
        self, backend: Backend, limiter: Limiter, new_name: Callable[[], str], fleet: Fleet
    ) -> None:
        self.on_crash: Callable[[float], None] = _ignore
        """Called when Central crashes, before anything is answered, with the seconds that it is
        away."""
        self._backend = backend
        self._limiter = limiter
        self._new_name = new_name
        self._calls: Mapping[tuple[str, str], Callable[[Request, float], Awaitable[Reply]]] = {
            ("POST", "products/create"): self._create,
            ("PUT", "products/set"): self._set,
            ("DELETE", "products/delete"): self._delete,
            ("GET", "faults"): self._list_faults,
            ("POST", "faults"): self._set_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "switches"): self._show_switches,
            ("PUT", "switches"): self._switch,
            ("GET", "backup"): self._backup,
            ("POST", "restore"): self._restore,
            ("POST", "wipe"): self._wipe,
            ("GET", "stores"): fleet.list,
            ("DELETE", "stores"): fleet.forget,
        }

    async def answer(self, request: Request, now: float) -> Reply:
        """Return the reply to an admin call, or raise Refused for a wrong path, method or body."""
        path = request.raw_path.removeprefix("/v1/admin/")
        call = self._calls.get((request.method, path))
        if call is not None:
            return await call(request, now)
        allowed = sorted(method for method, known in self._calls if known == path)
        if not allowed:
            raise Refused(404, "not_found", "no such admin call")
        message = f"this call takes {' or '.join(allowed)}"
        raise Refused(405, "method_not_allowed", message, headers={"Allow": ", ".join(allowed)})

    # Products

    async def _create(self, request: Request, now: float) -> Reply:
        results = await self._write_all(_listed(request, "products"), Creation, now)
        return self._results(results, "Creations")

    async def _set(self, request: Request, now: float) -> Reply:
        results = await self._write_all(_listed(request, "products"), Setting, now)
        return self._results(results, "Updates")

    async def _delete(self, request: Request, now: float) -> Reply:
        named = [{"productId": each} for each in _listed(request, "productIds")]
        results = await self._write_all(named, lambda each: Deletion(each["productId"]), now)
        return self._results(results, "Deletions")

    async def _write_all(
        self, products: list[Any], operation: Callable[[Row], Operation], now: float
    ) -> list[Answer]:
        """Return a result for each product; those that are not valid fail alone."""
        issues = [issue_of(each) for each in products]
        valid = [
            operation(each) for each, issue in zip(products, issues, strict=True) if issue is None
        ]
        answers = iter((await self._backend.write(valid, now)).answers if valid else ())
        return [
            next(answers) if issue is None else _refused(each, issue)
            for each, issue in zip(products, issues, strict=True)
        ]

    def _results(self, results: Sequence[Answer], deeds: str) -> Reply:
        names = ("total", "succeeded", "failed")
        if self._backend.switches.admin_summary == "long":
            names = ("totalRequests", f"successful{deeds}", f"failed{deeds}")
        succeeded = sum(result["success"] for result in results)
        counts = (len(results), succeeded, len(results) - succeeded)
        summary = dict(zip(names, counts, strict=True))
        return json_reply({"results": results, "summary": summary})

    # Faults and switches

    async def _list_faults(self, _: Request, __: float) -> Reply:
        return json_reply({"faults": [each.body() for each in await self._backend.faults()]})

    async def _set_fault(self, request: Request, _: float) -> Reply:
        command = _parsed(_COMMANDS, parse_json(request.body))
        if isinstance(command, Fault):
            return json_reply((await self._backend.add_fault(command)).body())
        await self._act(command)
        return json_reply({"done": command.model_dump(mode="json", by_alias=True)})

    async def _act(self, action: Action) -> None:
        match action:
            case ForgetLog():
                await self._backend.forget_log()
            case ForgetKeys():
                await self._backend.forget_keys()
            case NewGeneration(generation=name):
                await self._backend.begin_generation(name or self._new_name())
            case Skip(count=count):
                await self._backend.lose_next(count)
            case Lie(product_id=product_id, attributes=attributes):
                await self._lie(product_id, attributes)
            case Crash(loses=loses, count=count, seconds=seconds):
                await self._backend.crash(loses, count)
                self.on_crash(seconds)

    async def _lie(self, product_id: str, attributes: Row | None) -> None:
        issue = issue_of({**(attributes or {}), "productId": product_id})
        if issue is not None:
            raise invalid("attributes", issue)
        await self._backend.lie(product_id, attributes)

    async def _clear_faults(self, request: Request, _: float) -> Reply:
        number = request.query.get("id")
        if number is None:
            return json_reply({"cleared": await self._backend.clear_faults()})
        if not (number.isascii() and number.isdigit() and len(number) <= 18):
            raise invalid("id", "must be the number of a fault")
        return json_reply({"cleared": await self._backend.clear_faults(int(number))})

    async def _show_switches(self, _: Request, __: float) -> Reply:
        return json_reply(self._backend.switches.model_dump(mode="json", by_alias=True))

    async def _switch(self, request: Request, now: float) -> Reply:
        given = parse_json(request.body)
        if not isinstance(given, dict):
            raise invalid("body", "must be an object of switches")
        held = self._backend.switches.model_dump(by_alias=True)
        await self._backend.switch(_parsed(TypeAdapter(Switches), held | given))
        self._limiter.forget()
        return await self._show_switches(request, now)

    # Backup, restore, wipe

    async def _backup(self, _: Request, __: float) -> Reply:
        return json_reply(await self._backend.backup())

    async def _restore(self, request: Request, _: float) -> Reply:
        command = _parsed(TypeAdapter(Restoration), parse_json(request.body))
        backup = command.backup
        keeps = command.keep_generation or not self._backend.switches.has(Feature.GENERATION)
        name = backup.generation if keeps else self._new_name()
        await self._backend.restore(backup.model_dump(mode="json"), name)
        return await self._state()

    async def _wipe(self, request: Request, _: float) -> Reply:
        command = _parsed(TypeAdapter(Replacement), parse_json(request.body or b"{}"))
        keeps = command.keep_generation or not self._backend.switches.has(Feature.GENERATION)
        await self._backend.wipe(self._backend.generation if keeps else self._new_name())
        return await self._state()

    async def _state(self) -> Reply:
        moment = await self._backend.moment()
        counts = {"products": moment.products, "eventOffset": moment.head}
        return json_reply({"generation": moment.generation, **counts})


def _ignore(_: float) -> None:
    """The callback if none is set."""


def issue_of(attributes: Any) -> str | None:
    """Return what is wrong with a product's attributes, or None."""
    if not isinstance(attributes, dict):
        return "a product must be an object"
    product_id = attributes.get("productId")
    if not isinstance(product_id, str) or not 1 <= len(product_id) <= LONGEST_ID:
        return f"productId must be a string of 1 to {LONGEST_ID} characters"
    available = attributes.get("available", 0)
    if type(available) is not int or not 0 <= available <= LARGEST_EXACT:
        return "available must be a whole number, 0 or more"
    return _issue_of_value(attributes, 0)


def _issue_of_value(value: Any, depth: int) -> str | None:
    if isinstance(value, int):
        exact = -LARGEST_EXACT <= value <= LARGEST_EXACT
        return None if exact else f"{value} is beyond the whole numbers of JSON (2^53 - 1)"
    if not isinstance(value, dict | list):
        return None
    if depth >= DEEPEST_ATTRIBUTE:
        return f"attributes must not be nested deeper than {DEEPEST_ATTRIBUTE}"
    inner = value.values() if isinstance(value, dict) else value
    return next(filter(None, (_issue_of_value(each, depth + 1) for each in inner)), None)


def _refused(attributes: Any, issue: str) -> Answer:
    product_id = attributes.get("productId") if isinstance(attributes, dict) else None
    failed = {"success": False, "errorType": "invalid_request", "errorMessage": issue}
    return {"productId": product_id} | failed


def _listed(request: Request, name: str) -> list[Any]:
    body = parse_json(request.body)
    listed = body.get(name) if isinstance(body, dict) else None
    if not isinstance(listed, list):
        raise invalid(name, "must be a list")
    return listed


def _parsed(adapter: TypeAdapter[Model], value: Any) -> Model:
    try:
        return adapter.validate_python(value, by_alias=True, by_name=False)
    except ValidationError as error:
        details = [_detail(dict(each)) for each in error.errors(include_url=False)]
        message = "; ".join(f"{each.field}: {each.issue}" for each in details)
        raise Refused(400, "invalid_request", message, details=details) from None


def _detail(error: Mapping[str, Any]) -> Detail:
    return Detail(".".join(map(str, error["loc"])) or "body", str(error["msg"]))
