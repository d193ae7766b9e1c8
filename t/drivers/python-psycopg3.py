"""psycopg 3: the examples of docs/drivers.md. t/drivers.pl runs this file
and looks at the table."""

from datetime import datetime, timezone
from decimal import Decimal

import psycopg
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.json import Jsonb

noon = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
conn = psycopg.connect(autocommit=True)

# One row
upsert = "SELECT batchdedup.upsert(ROW(%s, %s, %s, %s, %s)::device_state)"
conn.execute(upsert, ["one", "ok", Decimal("11.8"), noon, None])

# Many rows in one call: columns by name, a list for each
conn.execute(
    """SELECT count(batchdedup.upsert_record('device_state', s))
         FROM unnest(%s::text[], %s::text[], %s::numeric[]) AS s(device, status, volts)""",
    [["many-1", "many-2"], ["ok", "low"], [12.5, None]])

# ... or JSON
conn.execute(
    "SELECT batchdedup.upsert('device_state', %s)",
    [Jsonb([{"device": "many-3", "status": "ok", "volts": 12.5},
            {"device": "many-4", "status": "low"}])])

# ... or whole rows: psycopg makes a named tuple of the table's row type
info = CompositeInfo.fetch(conn, "device_state")
register_composite(info, conn)
DeviceState = info.python_type
conn.execute(
    "SELECT batchdedup.upsert(%s)",
    [[DeviceState("many-5", "ok", Decimal("12.5"), noon, None),
      DeviceState("many-6", "low", None, noon, None)]])

# None is NULL; what is absent is not given
by_name = "SELECT batchdedup.upsert('device_state', %s)"
conn.execute(by_name, [Jsonb({"device": "null", "status": "ok", "volts": 9.5})])
conn.execute(by_name, [Jsonb({"device": "null", "status": None})])

# A jsonb column
conn.execute(upsert, ["json", "ok", None, noon, Jsonb({"rpm": 1450, "parts": ["a", "b"]})])

# Through the view: INSERT ...
insert = "INSERT INTO device_state_buffered (device, status, volts, seen_at) VALUES (%s, %s, %s, %s)"
conn.execute(insert, ["view-1", "ok", 12.5, noon])
conn.execute(insert, ["view-2", "low", None, noon])

# ... and COPY
with conn.cursor().copy(
        "COPY device_state_buffered (device, status, volts, seen_at) FROM STDIN") as copy:
    copy.write_row(["copy-1", "ok", 12.5, noon])
    copy.write_row(["copy-2", "low", None, noon])

# Batches: executemany() sends its rows in pipeline mode
with conn.cursor() as cursor:
    cursor.executemany(upsert, [(f"batch-{i % 10}", "ok", i, noon, None) for i in range(50)])

# ... and so does a pipeline, in one transaction here
with conn.pipeline(), conn.transaction():
    for i in range(50, 100):
        conn.execute(upsert, [f"batch-{i % 10}", "ok", i, noon, None])

# Reading what may not be in the table yet
row, = conn.execute(
    "SELECT batchdedup.get('device_state', %s)", [Jsonb({"device": "one"})]).fetchone()
print("get:", row["status"], row["volts"])


# Forms that do not work
def refused(message, call, *arguments):
    try:
        call(*arguments)
    except (psycopg.Error, TypeError) as error:
        if message not in str(error):
            raise
        print("refused:", message)
    else:
        raise SystemExit(f"not refused: {arguments}")


refused("cannot adapt type 'dict'",
        conn.execute, by_name, [{"device": "x"}])
refused("Object of type Decimal is not JSON serializable",
        conn.execute, by_name, [Jsonb({"device": "x", "volts": Decimal("11.8")})])
refused("function batchdedup.upsert(unknown) is not unique",
        conn.execute, "SELECT batchdedup.upsert(%s)", [("x", "ok", 11.8, noon, None)])
refused("cannot dump lists of mixed types",
        conn.execute, "SELECT batchdedup.upsert(ROW(%s)::device_state)",
        [["x", "ok", 11.8, noon, None]])
refused("function pg_catalog.unnest(unknown) is not unique",
        conn.execute, """SELECT count(batchdedup.upsert_record('device_state', s))
                           FROM unnest(%s, %s) AS s(device, status)""",
        [["x", "y"], ["ok", "low"]])
refused("cannot insert multiple commands into a prepared statement",
        conn.execute, "SELECT batchdedup.upsert('device_state', %s); SELECT 1",
        [Jsonb({"device": "x"})])
refused("there is no unique or exclusion constraint matching the ON CONFLICT specification",
        conn.execute, "INSERT INTO device_state_buffered VALUES ('x', 'ok')"
        " ON CONFLICT (device) DO UPDATE SET status = 'ok'")
refused('null value in key column "device"',
        conn.cursor().executemany, by_name, [[Jsonb({"device": "x"})], [Jsonb({"device": None})]])
