-- +goose Up
CREATE TABLE users (
    id         TEXT    NOT NULL PRIMARY KEY,           -- UUIDv7, so the order of ids is that of creation
    name       TEXT    NOT NULL,
    email      TEXT    NOT NULL COLLATE NOCASE UNIQUE, -- ASCII alone, which is all that NOCASE folds
    created_at INTEGER NOT NULL,                       -- microseconds since 1970, UTC
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE users;
