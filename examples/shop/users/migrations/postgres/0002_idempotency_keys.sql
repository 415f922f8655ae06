-- +goose Up
CREATE TABLE idempotency_keys (
    key         text   NOT NULL PRIMARY KEY,
    fingerprint bytea  NOT NULL,
    owner       text   NOT NULL, -- who has claimed the key
    expires_at  bigint NOT NULL, -- the claim or the answer; milliseconds since 1970
    done        bigint NOT NULL, -- 0, or carried out: the answer may come until this time
    answer      bytea            -- NULL while it is not known
);
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);

-- +goose Down
DROP TABLE idempotency_keys;
