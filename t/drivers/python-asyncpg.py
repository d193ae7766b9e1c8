"""asyncpg: the examples of docs/drivers.md. t/drivers.pl runs this file
and looks at the table."""

import asyncio
import json
from datetime import datetime, timezone
from decimal import Decimal

import asyncpg

noon = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
upsert = "SELECT batchdedup.upsert($1::device_state)"
by_name = "SELECT batchdedup.upsert('device_state', $1)"


async def examples(conn):
    # jsonb is text unless a codec says otherwise. A binary one works inside of
    # rows and arrays, too.
    await conn.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary",
        encoder=lambda value: b"\1" + json.dumps(value).encode(),
        decoder=lambda data: json.loads(data[1:]))

    # One row: a tuple is a row
    await conn.execute(upsert, ("one", "ok", Decimal("11.8"), noon, None))

    # Many rows in one call: columns by name, a list for each
    await conn.execute(
        """SELECT count(batchdedup.upsert_record('device_state', s))
             FROM unnest($1::text[], $2::text[], $3::numeric[]) AS s(device, status, volts)""",
        ["many-1", "many-2"], ["ok", "low"], [12.5, None])

    # ... or JSON
    await conn.execute(
        by_name, [{"device": "many-3", "status": "ok", "volts": 12.5},
                  {"device": "many-4", "status": "low"}])

    # ... or whole rows
    await conn.execute(
        "SELECT batchdedup.upsert($1::device_state[])",
        [("many-5", "ok", 12.5, noon, None), ("many-6", "low", None, noon, None)])

    # None is NULL; what is absent is not given
    await conn.execute(by_name, {"device": "null", "status": "ok", "volts": 9.5})
    await conn.execute(by_name, {"device": "null", "status": None})

    # A jsonb column
    await conn.execute(
        upsert, ("json", "ok", None, noon, {"rpm": 1450, "parts": ["a", "b"]}))

    # Through the view: INSERT ...
    await conn.executemany(
        "INSERT INTO device_state_buffered (device, status, volts, seen_at) VALUES ($1, $2, $3, $4)",
        [("view-1", "ok", 12.5, noon), ("view-2", "low", None, noon)])

    # ... and COPY
    await conn.copy_records_to_table(
        "device_state_buffered", columns=["device", "status", "volts", "seen_at"],
        records=[("copy-1", "ok", 12.5, noon), ("copy-2", "low", None, noon)])

    # Batches: executemany() sends its rows in a pipeline, as one transaction
    await conn.executemany(
        upsert, [[(f"batch-{i % 10}", "ok", i, noon, None)] for i in range(100)])

    # Reading what may not be in the table yet
    row = await conn.fetchval(
        "SELECT batchdedup.get('device_state', $1)", {"device": "one"})
    print("get:", row["status"], row["volts"])


# Forms that do not work
async def refused(message, call):
    try:
        await call
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if message not in str(error):
            raise
        print("refused:", message)
    else:
        raise SystemExit(f"not refused: {message}")


async def at_once(*calls):
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def what_does_not_work(conn):
    await refused("expected str, got dict",
                  conn.execute(by_name, {"device": "x"}))
    await refused("(expected a datetime.date or datetime.datetime instance, got 'str')",
                  conn.execute(upsert, ("x", "ok", 11.8, "2026-01-01 12:00+00", None)))
    await refused('null value in column "seen_at" of relation "device_state"',
                  conn.execute(upsert, {"device": "x", "status": "ok"}))
    await refused("wrong number of columns: 2, expected 5",
                  conn.execute(upsert, ("x", "ok")))
    await refused("function batchdedup.upsert(unknown) is not unique",
                  conn.execute("SELECT batchdedup.upsert($1)", ("x", "ok", 11.8, noon, None)))
    await refused("input of anonymous composite types is not supported",
                  conn.execute("SELECT batchdedup.upsert($1::record)", ("x", "ok")))
    await refused("cannot insert multiple commands into a prepared statement",
                  conn.execute("SELECT batchdedup.upsert('device_state', $1); SELECT 1", "{}"))
    await refused("there is no unique or exclusion constraint matching the ON CONFLICT specification",
                  conn.execute("INSERT INTO device_state_buffered VALUES ('x', 'ok')"
                               " ON CONFLICT (device) DO UPDATE SET status = 'ok'"))
    await refused('null value in key column "device"',
                  conn.executemany(by_name, [['{"device": "x"}'], ['{"device": null}']]))
    await conn.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    await refused("text encoding of composite types is not supported",
                  conn.execute(upsert, ("x", "ok", 11.8, noon, {"rpm": 1450})))
    await refused("another operation is in progress",
                  at_once(conn.execute(by_name, {"device": "many-1"}),
                          conn.execute(by_name, {"device": "many-1"})))


async def main():
    await examples(await asyncpg.connect())
    await what_does_not_work(await asyncpg.connect())


asyncio.run(main())
