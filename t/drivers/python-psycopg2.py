"""psycopg2: the examples of docs/drivers.md. t/drivers.pl runs this file
and looks at the table."""

import io
from datetime import datetime, timezone
from decimal import Decimal

import psycopg2
from psycopg2.extras import Json, execute_batch, execute_values

noon = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
conn = psycopg2.connect("")
conn.autocommit = True
cursor = conn.cursor()

# One row: a tuple is written as a row
upsert = "SELECT batchdedup.upsert(%s::device_state)"
cursor.execute(upsert, [("one", "ok", Decimal("11.8"), noon, None)])

# Many rows in one call: columns by name, a list for each
cursor.execute(
    """SELECT count(batchdedup.upsert_record('device_state', s))
         FROM unnest(%s, %s, %s::numeric[]) AS s(device, status, volts)""",
    [["many-1", "many-2"], ["ok", "low"], [12.5, None]])

# ... or JSON
cursor.execute(
    "SELECT batchdedup.upsert('device_state', %s)",
    [Json([{"device": "many-3", "status": "ok", "volts": 12.5},
           {"device": "many-4", "status": "low"}])])

# ... or whole rows
cursor.execute(
    "SELECT batchdedup.upsert(%s::device_state[])",
    [[("many-5", "ok", 12.5, noon, None), ("many-6", "low", None, noon, None)]])

# None is NULL; what is absent is not given
by_name = "SELECT batchdedup.upsert('device_state', %s)"
cursor.execute(by_name, [Json({"device": "null", "status": "ok", "volts": 9.5})])
cursor.execute(by_name, [Json({"device": "null", "status": None})])

# A jsonb column
cursor.execute(upsert, [("json", "ok", None, noon, Json({"rpm": 1450, "parts": ["a", "b"]}))])

# Through the view: INSERT ...
execute_values(
    cursor, "INSERT INTO device_state_buffered (device, status, volts, seen_at) VALUES %s",
    [("view-1", "ok", 12.5, noon), ("view-2", "low", None, noon)])

# ... and COPY
lines = io.StringIO("copy-1\tok\t12.5\t2026-01-01 12:00+00\n"
                    "copy-2\tlow\t\\N\t2026-01-01 12:00+00\n")
cursor.copy_from(lines, "device_state_buffered", columns=("device", "status", "volts", "seen_at"))

# Batches: there is no pipeline mode, but both of these send many rows at once
execute_batch(cursor, upsert,
              [[(f"batch-{i % 10}", "ok", i, noon, None)] for i in range(50)])
execute_values(
    cursor,
    """SELECT count(batchdedup.upsert_record('device_state', s))
         FROM (VALUES %s) AS s(device, status, volts, seen_at)""",
    [(f"batch-{i % 10}", "ok", i, noon) for i in range(50, 100)],
    template="(%s, %s, %s::numeric, %s::timestamptz)")

# Reading what may not be in the table yet
cursor.execute("SELECT batchdedup.get('device_state', %s)", [Json({"device": "one"})])
row, = cursor.fetchone()
print("get:", row["status"], row["volts"])


# Forms that do not work
def refused(message, call, *arguments):
    try:
        call(*arguments)
    except psycopg2.Error as error:
        if message not in str(error):
            raise
        print("refused:", message)
    else:
        raise SystemExit(f"not refused: {arguments}")


refused("can't adapt type 'dict'",
        cursor.execute, by_name, [{"device": "x"}])
refused("function batchdedup.upsert(unknown, text[]) does not exist",
        cursor.execute, by_name, [[Json({"device": "x"})]])
refused("the row is of type record, which is not a table's row type",
        cursor.execute, "SELECT batchdedup.upsert(%s)", [("x", "ok", 11.8, noon, None)])
refused("ARRAY types numeric and timestamp with time zone cannot be matched",
        cursor.execute, "SELECT batchdedup.upsert(ROW(%s)::device_state)",
        [["x", "ok", 11.8, noon, None]])
refused('column "volts" is of type numeric but the record\'s field is of type text',
        execute_values, cursor,
        """SELECT count(batchdedup.upsert_record('device_state', s))
             FROM (VALUES %s) AS s(device, volts)""",
        [("x", None), ("y", None)])
refused("there is no unique or exclusion constraint matching the ON CONFLICT specification",
        cursor.execute, "INSERT INTO device_state_buffered VALUES ('x', 'ok')"
        " ON CONFLICT (device) DO UPDATE SET status = 'ok'")
refused('null value in key column "device"',
        execute_batch, cursor, by_name, [[Json({"device": "x"})], [Json({"device": None})]])
