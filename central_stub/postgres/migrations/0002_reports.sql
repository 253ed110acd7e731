-- The last report of each process of each store, by which the processes of Central share what they
-- were told. `central`: the process that was told; `stored_at`: unix seconds of this server's clock.
-- An empty body says that an administrator has forgotten the store.
CREATE TABLE central.reports (
    tenant text NOT NULL,
    store_id text NOT NULL,
    process text NOT NULL,
    central text NOT NULL,
    stored_at double precision NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (tenant, store_id, process)
) WITH (fillfactor = 50);
CREATE INDEX reports_stored_at ON central.reports (stored_at);
