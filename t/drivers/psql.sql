-- psql: the examples of docs/drivers.md. t/drivers.pl runs this file and
-- looks at the table.
\set ON_ERROR_STOP on
\o /dev/null

-- One row
\set device one
\set volts 11.8
SELECT batchdedup.upsert(ROW(:'device', 'ok', :volts, '2026-01-01 12:00+00', NULL)::device_state);

-- Many rows in one call: columns by name, JSON, whole rows
SELECT count(batchdedup.upsert_record('device_state', s))
  FROM (VALUES ('many-1', 'ok', 12.5), ('many-2', 'low', NULL)) AS s(device, status, volts);
SELECT batchdedup.upsert('device_state', '[{"device": "many-3", "status": "ok", "volts": 12.5},
                                           {"device": "many-4", "status": "low"}]');
SELECT batchdedup.upsert(ARRAY[ROW('many-5', 'ok', 12.5, '2026-01-01 12:00+00', NULL),
                               ROW('many-6', 'low', NULL, '2026-01-01 12:00+00', NULL)]::device_state[]);

-- NULL is a value; what is absent is not given
SELECT batchdedup.upsert('device_state', '{"device": "null", "status": "ok", "volts": 9.5}');
SELECT batchdedup.upsert('device_state', '{"device": "null", "status": null}');

-- A jsonb column
SELECT batchdedup.upsert(ROW('json', 'ok', NULL, '2026-01-01 12:00+00',
                             '{"rpm": 1450, "parts": ["a", "b"]}')::device_state);

-- Through the view: INSERT and COPY
INSERT INTO device_state_buffered (device, status, volts, seen_at)
VALUES ('view-1', 'ok', 12.5, '2026-01-01 12:00+00'), ('view-2', 'low', NULL, '2026-01-01 12:00+00');
COPY device_state_buffered (device, status, volts, seen_at) FROM STDIN;
copy-1	ok	12.5	2026-01-01 12:00+00
copy-2	low	\N	2026-01-01 12:00+00
\.

-- Batches: a file
\copy device_state_buffered (device, status, volts, seen_at) FROM 'readings.csv' CSV

-- Reading what may not be in the table yet
SELECT r ->> 'status' AS status, r ->> 'volts' AS volts
  FROM batchdedup.get('device_state', '{"device": "one"}') AS r \gset
\echo get: :status :volts

-- Forms that do not work
\set ON_ERROR_STOP off
SELECT batchdedup.upsert(ROW('x', 'ok', 11.8, now(), NULL));
\echo refused: :LAST_ERROR_MESSAGE
SELECT batchdedup.upsert(ROW('x', 'ok')::device_state);
\echo refused: :LAST_ERROR_MESSAGE
SELECT batchdedup.upsert('(x,ok,11.8,now,)');
\echo refused: :LAST_ERROR_MESSAGE
SELECT batchdedup.upsert_record('device_state', ROW('x', 'ok'));
\echo refused: :LAST_ERROR_MESSAGE
SELECT batchdedup.upsert_record('device_state', s) FROM (VALUES ('x', '11.8')) AS s(device, volts);
\echo refused: :LAST_ERROR_MESSAGE
INSERT INTO device_state_buffered VALUES ('x', 'ok') ON CONFLICT (device) DO UPDATE SET status = 'ok';
\echo refused: :LAST_ERROR_MESSAGE
SELECT batchdedup.upsert('device_state', '[{"device": "x"}, {"device": null}]');
\echo refused: :LAST_ERROR_MESSAGE
