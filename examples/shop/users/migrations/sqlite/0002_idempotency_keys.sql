-- +goose Up
CREATE TABLE idempotency_keys (
    key         TEXT    NOT NULL PRIMARY KEY,
    fingerprint BLOB    NOT NULL,
    owner       TEXT    NOT NULL, -- who has claimed the key
    expires_at  INTEGER NOT NULL, -- the claim or the answer; milliseconds since 1970
    done        INTEGER NOT NULL, -- 0, or carried out: the answer may come until this time
    answer      BLOB              -- NULL while it is not known
) STRICT;
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);

-- +goose Down
DROP TABLE idempotency_keys;
