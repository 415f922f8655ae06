-- +goose Up
CREATE TABLE users (
    id         uuid        NOT NULL PRIMARY KEY, -- UUIDv7, so the order of ids is that of creation
    name       text        NOT NULL,
    email      text        NOT NULL COLLATE "C", -- ASCII alone, so no locale may have a say in its case
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX users_email ON users (lower(email));

-- The time of the last id: milliseconds since 1970, with 12 bits for parts of one.
CREATE SEQUENCE users_tick;

-- next_user_id returns a UUIDv7 (RFC 9562, with method 3 of section 6.2) above all
-- those it has returned, whatever the clock does. The lock is held until the
-- transaction ends and is visible: so users appear in the order of their ids,
-- and who reads on after the last id he has seen misses none.
-- +goose StatementBegin
CREATE FUNCTION next_user_id() RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    micros bigint;
    tick   bigint;
BEGIN
    PERFORM pg_advisory_xact_lock('users'::regclass::oid::bigint);
    micros := extract(epoch FROM clock_timestamp()) * 1000000;
    tick := micros / 1000 * 4096 + micros % 1000 * 4096 / 1000;
    tick := setval('users_tick', greatest(tick, nextval('users_tick')));
    RETURN encode(
        int8send(((tick >> 12) << 16) | (7 << 12) | (tick & 4095))     -- time, version, time
        || substring(uuid_send(gen_random_uuid()) FROM 9), 'hex')::uuid; -- variant, random
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION next_user_id();
DROP SEQUENCE users_tick;
DROP TABLE users;
