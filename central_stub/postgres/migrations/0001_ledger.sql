-- Ids, keys and bodies are bytes of UTF-8: jsonb would change numbers, text refuses NUL, and bytes
-- are ordered as code points are.

-- One row for each tenant, which every transaction with events changes last: so offsets are dense
-- and in the order of commits. A fill factor of 10 leaves room for many versions on its page.
CREATE TABLE central.feed (
    tenant integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    generation text NOT NULL,
    -- Raised by whatever takes events back on purpose; and with each new generation.
    epoch bigint NOT NULL DEFAULT 0,
    -- The last offset, and the first that is still held.
    head bigint NOT NULL DEFAULT 0,
    floor bigint NOT NULL DEFAULT 1,
    -- Events up to this offset are left out: the fault `skip`.
    lost_until bigint NOT NULL DEFAULT 0,
    products bigint NOT NULL DEFAULT 0,
    -- Raised by each change of switches or faults.
    revision bigint NOT NULL DEFAULT 0,
    switches bytea NOT NULL,
    last_fault bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

CREATE TABLE central.products (
    tenant integer NOT NULL,
    id bytea NOT NULL,
    body bytea NOT NULL,
    -- The first eight bytes of sha256(id); the hash of the row as four signed digits to base 2^32.
    place bigint NOT NULL,
    hash_0 integer NOT NULL,
    hash_1 integer NOT NULL,
    hash_2 integer NOT NULL,
    hash_3 integer NOT NULL,
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 80);

CREATE TABLE central.events (
    tenant integer NOT NULL,
    number bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (tenant, number)
);

CREATE TABLE central.keys (
    tenant integer NOT NULL,
    key bytea NOT NULL,
    answered_at double precision NOT NULL,
    answer bytea NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX keys_answered_at ON central.keys USING brin (answered_at);

CREATE TABLE central.faults (
    tenant integer NOT NULL,
    number bigint NOT NULL,
    fault bytea NOT NULL,
    times bigint,
    struck bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, number)
);

-- The unsigned 64 bits of a place, modulo the number of buckets.
CREATE FUNCTION central.bucket_of(place bigint, buckets bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (((place >> 32) & 4294967295) % buckets * (4294967296 % buckets)
        + (place & 4294967295) % buckets) % buckets;
