"""Common, odd and malformed requests, drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

ODD_IDS = (
    "PROD-001", "PROD-002", "PROD-003", "a", "_x", "~x", "a.b", "-", "lookup", "x" * 199, "x" * 200,
    "x" * 201, ".hidden", "..", ".", "tea/green 50%", "ä", "a b", "a+b", "1:2", "a;b", "a=b", "a@b",
)  # fmt: skip
"""The ids of the products of the store."""

ORIGIN = "https://till.example.com"
"""The origin of the requests that have one of a till."""

_PATH = b"/v1/store/inventory"
_PRODUCTS = tuple(
    one.encode()
    for one in (
        "PROD-001", "PROD-002", "PROD-003", "a", "_x", "~x", "a.b", "-", "lookup", "x" * 199,
        "x" * 200, "x" * 201, ".hidden", "..", ".", "%2e%2e", "tea%2Fgreen%2050%25", "%C3%A4",
        "a%20b", "a+b", "1:2", "a;b", "a=b", "a@b", "PROD-999", "prod-001", "%50ROD-001", "%5",
        "PROD-001/", "PROD-001?", "PROD-001?limit=1", "PROD-001#f", "PROD-001/inventory", "", "%00",
        "a%2Eb", "PROD%2d002", "%61", "%7Ex", "%2E%2E", "%2Ehidden", "%6Cookup", "%C3", "%c3%a4",
        "a%2", "%", "%25", "a%2Bb", "PROD-001?after=", "updates", "{a}", "a|b", "x" * 9000,
    )
)  # fmt: skip
_QUERIES = tuple(
    one.encode()
    for one in (
        "", "?", "?limit=2", "?limit=2&offset=1", "?offset=1&limit=2", "?offset=0", "?offset=99",
        "?limit=0", "?limit=-1", "?limit=201", "?limit=200", "?limit=02", "?offset=00",
        "?offset=1&limit=0", "?offset=0&limit=201", "?offset=01&limit=2",
        "?limit=999999999999999999999", "?limit=",
        "?offset=99999999999&limit=2", "?limit=2&limit=3", "?offset=1&limit=2&limit=2",
        "?sort=name", "?sort=productId", "?search=name", "?search=a&limit=2", "?inStock=true",
        "?search=", "?barcode=1", "?limit=2&category=x", "?search=a&after=a", "?status=x&after=",
        "?after=", "?after=PROD-001", "?limit=1&after=PROD-001", "?after=PROD-001&limit=1",
        "?after=a&offset=1", "?after=%20", "?after=a+b", "?Limit=2", "?limit", "?=2", "?&limit=2",
        "?limit=2&", "?limit=2&&offset=1", "?limit==2", "?limit=2=2", "?a=b=c", "?limit=2#f", "??",
        "?limit=%32", "?li%6Dit=2", "?limit=2;offset=1", "?after=..", "?limit=1_0", "?limit=1.0",
        "?after=" + "x" * 300,
    )
)  # fmt: skip
_OTHERS = (
    b"/health", b"/ready", b"/", b"*", b"/v1", b"/v1/store/inventory/", b"//v1/store/inventory",
    b"/v1/store/inventory/../inventory", b"/v1/store/./inventory", b"/V1/store/inventory",
    b"http://store/v1/store/inventory/PROD-001", b"http://other/v1/store/inventory?limit=1",
    b"store:8083", b"/v1/store/sync/status", b"/v1/store/inventory/lookup",
    b"/v1%2Fstore/inventory",
)  # fmt: skip
_METHODS = (
    b"HEAD", b"POST", b"get", b"Get", b"OPTIONS", b"DELETE", b"TRACE", b"PATCH", b"PUT", b"BREW",
    b"",
    b"CONNECT", b"GETX", b" GET", b"G\tET",
)  # fmt: skip
_VERSIONS = (
    b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b"HTTP/1", b"", b"HTTP/11",
    b"HTTP/0.9", b" HTTP/1.1", b"XTTP/1.1",
)  # fmt: skip
_TAG = b'"0123456789abcdef01234567"'
_USUAL = (
    b"Sec-Fetch-Mode: cors", b'sec-ch-ua: "Chromium";v="130", "x"', b"Referer: http://store:8083/till",
    b"User-Agent: till/2.1 (x; y)", b"Accept: */*", b"Accept: application/json",
    b"accept-encoding: gzip, deflate", b"Accept-Language: de-AT,de;q=0.9",
    b"Connection: keep-alive",
    b"connection: Keep-Alive", b"X-Request-ID: till-3-17", b"If-None-Match: " + _TAG,
    b"If-None-Match: *", b"If-None-Match: W/" + _TAG, b"Accept: application/problem+json",
    b"Origin: " + ORIGIN.encode(), b"Origin: https://other.example.com",
)  # fmt: skip
_ODD = (
    b"Connection: close", b"Connection: close, keep-alive", b"Connection: upgrade",
    b"Connection: keep-alive, te", b"Upgrade: h2c", b"Upgrade: websocket", b"Content-Length: 0",
    b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: +0", b"Content-Length: 0x5",
    b"Content-Length: 0, 0", b"Content-Length: 99999999999999999999", b"Content-Length : 0",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: x, chunked",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked", b"TE: trailers",
    b"Trailer: X",
    b"Expect: 100-continue", b"Expect: nothing", b"Range: bytes=0-9", b"Cache-Control: no-cache",
    b"Cache-Control: no-store", b"cache-control: max-age=0, NO-CACHE", b"Pragma: no-cache",
    b"Origin: " + ORIGIN.encode() + b"/", b"Origin: null", b"Cookie: a=b",
    b"Content-Type: text/plain",
    b"Content-Type: application/json", b"Content-Encoding: gzip", b"Host: other", b"Host: ",
    b"Host: a b", b"Host: a, b", b"X-API-Key: till-secret", b"X-API-Key: other", b"X-API-Key:",
    b"x-api-key: office-secret", b"X_API_Key: till-secret", b"X-Request-ID: a b", b"X-Request-ID:",
    b"X-Request-ID: " + b"x" * 128, b"X-Request-ID: " + b"x" * 129, b"X-Request-ID: one%b",
    b"If-None-Match:", b"If-None-Match: 0123", b'If-None-Match: "a", ' + _TAG + b' , W/"b",',
    b'If-None-Match: "a" "b"', b"If-None-Match: *, *", b"If-None-Match: \xff", b"If-None-Match: " +
    b'"x", ' * 400, b"If-Match: *", b"If-Modified-Since: Fri, 20 Nov 2026 16:32:15 GMT",
    b"Access-Control-Request-Method: GET", b" folded: line", b"\tfolded", b": empty", b"no colon",
    b"Sp ace: x", b"N\x00ul: x", b"X-Null: a\x00b", b"X-CR: a\rb", b"X-LF: a\nb", b"X-Tab: a\tb",
    b"X-Latin: \xe9", b"X-Utf: \xc3\xa4", b"\xc3\xa4: x", b"X-Long: " + b"x" * 2100,
    b"X-Longer: " + b"x" * 9000, b"Proxy-Connection: close", b"Keep-Alive: timeout=5",
    b"Forwarded: for=1.2.3.4", b"X-HTTP-Method-Override: DELETE", b"Sec-WebSocket-Key: x", b"",
)  # fmt: skip
_HOSTS = (
    b"Host: store:8083",
    b"host:store",
    b"HOST:  store",
    b"Host: 127.0.0.1",
    b"Host: store_1",
    b"Host: [::1]:80",
)
_KEYS = (
    b"X-API-Key: till-secret", b"x-api-key:till-secret", b"X-Api-Key: office-secret",
    b"X-API-Key:  till-secret ", b"X-API-Key: wrong", b"X-API-Key: till-secret2",
    b"X-API-Key: till",
)  # fmt: skip
_LISTS = (
    b'{"productIds":["PROD-001","PROD-002"]}', b'{"productIds": ["PROD-001", "PROD-002"]}',
    b'{"productIds":["PROD-001","PROD-999","PROD-001","a"]}', b'{"productIds":[]}',
    b'{"productIds":[""]}', b'{"productIds":["",""]}', b'{"productIds":["a", "_x","~x"]}',
    b'{"productIds":["\\u0061"]}', b'{"productIds":["a"],"productIds":["_x"]}',
    b'{"productIds":"a"}',
    b'{"productIds":["a"]} ', b'{"productIds":["a",]}', b'{"productIds":["a""b"]}', b"{}", b"[]",
    b"",
    b'{"productIds":["tea/green 50%"]}', b'{"productIds":["\xc3\xa4"]}', b'{"productIds":["\xff"]}',
    b'{"productIds":[' + b",".join([b'"a"'] * 200) + b"]}",
    b'{"productIds":[' + b",".join([b'"a"'] * 201) + b"]}",
    b'{"barcodes":["4"]}', b'{"productIds":["a"],"barcodes":["4"]}', b'{"productIds":["a"]}}',
    b'{"productIds":["a","b":["c"]}', b'{"productIds":["a\nb"]}', b'{"productIds":[1]}',
)  # fmt: skip
_ENDS = (b"\r\n\r\n",) * 12 + (
    b"\n\n",
    b"\r\n\n",
    b"\n\r\n",
    b"\r\r",
    b"\r\n",
    b"\r\n\r\n\r\n",
    b"",
)


class Odd:
    """Draws requests; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def requests(self, most: int = 5) -> list[list[bytes]]:
        """Return the requests of one connection, each in the chunks in which it arrives."""
        return [self._cut(self._request()) for _ in range(self.random.randint(1, most))]

    def _request(self) -> bytes:
        request = self._basket() if self._is(0.12) else self._read()
        if self._is(0.04):
            request = self._damaged(request)
        if self._is(0.03):
            request += self._read()
        if self._is(0.02):
            request = self._pick((b"\r\n", b"\n", b"\r", b" ", b"\x00", b"0\r\n\r\n")) + request
        return request

    def _read(self) -> bytes:
        method = self._rarely(_METHODS, b"GET", 0.05)
        version = self._rarely(_VERSIONS, b"HTTP/1.1", 0.03)
        lines = [b" ".join((method, self._target(), version)), *self._fields()]
        end = self._pick(_ENDS) if self._is(0.06) else b"\r\n\r\n"
        between = b"\n" if self._is(0.02) else b"\r\n"
        return between.join(lines) + end

    def _basket(self) -> bytes:
        body = self._pick(_LISTS)
        length = len(body) + (self.random.randint(-2, 2) if self._is(0.1) else 0)
        typed = self._rarely(
            (b"application/json; charset=utf-8", b"Application/JSON", b"text/plain"),
            b"application/json",
            0.15,
        )
        fields = [*self._fields(), b"Content-Type: " + typed, b"Content-Length: %d" % length]
        if self._is(0.3):
            self.random.shuffle(fields)
        line = b"POST " + _PATH + b"/lookup" + (b"?a=b" if self._is(0.05) else b"") + b" HTTP/1.1"
        return b"\r\n".join([line, *fields, b"", body])

    def _fields(self) -> list[bytes]:
        fields = [self._rarely(_HOSTS, b"Host: store", 0.2)]
        fields += [self._rarely(_KEYS, b"X-API-Key: till-secret", 0.08)]
        if self._is(0.04):
            fields.pop(self.random.randrange(2))
        if self._is(0.5):
            fields += self.random.sample(_USUAL, k=self.random.randint(1, 2))
        if self._is(0.15):
            fields.insert(self.random.randint(0, len(fields)), self._pick(_ODD))
        return fields

    def _target(self) -> bytes:
        chance = self.random.random()
        if chance < 0.5:
            return _PATH + b"/" + self._rarely(_PRODUCTS, b"PROD-001", 0.3)
        if chance < 0.92:
            return _PATH + self._pick(_QUERIES)
        return self._pick(_OTHERS)

    def _damaged(self, request: bytes) -> bytes:
        """Remove, double or change one byte."""
        at = self.random.randrange(len(request))
        new = self._pick((b"", request[at : at + 1] * 2, bytes([self.random.randrange(256)])))
        return request[:at] + new + request[at + 1 :]

    def _cut(self, request: bytes) -> list[bytes]:
        if not request or self._is(0.94):
            return [request] if request else []
        at = self.random.randrange(len(request))
        return [part for part in (request[:at], request[at:]) if part]

    def _pick(self, given: Sequence[bytes]) -> bytes:
        return self.random.choice(given)

    def _rarely(self, given: Sequence[bytes], usual: bytes, chance: float) -> bytes:
        return self._pick(given) if self._is(chance) else usual

    def _is(self, chance: float) -> bool:
        return self.random.random() < chance
