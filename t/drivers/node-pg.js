// node-pg: the examples of docs/drivers.md. t/drivers.pl runs this file
// and looks at the table.
'use strict';
const { Readable } = require('stream');
const { pipeline } = require('stream/promises');
const { Client } = require('pg');
const copyFrom = require('pg-copy-streams').from;

const noon = new Date('2026-01-01T12:00:00Z');

async function examples(client) {
  // One row
  const upsert = 'SELECT batchdedup.upsert(ROW($1, $2, $3, $4, $5)::device_state)';
  await client.query(upsert, ['one', 'ok', 11.8, noon, null]);

  // Many rows in one call: columns by name, an array for each
  await client.query(
    `SELECT count(batchdedup.upsert_record('device_state', s))
       FROM unnest($1::text[], $2::text[], $3::numeric[]) AS s(device, status, volts)`,
    [['many-1', 'many-2'], ['ok', 'low'], [12.5, null]]);

  // ... or JSON: an array needs JSON.stringify, an object does not
  const byName = "SELECT batchdedup.upsert('device_state', $1)";
  const rows = [{ device: 'many-3', status: 'ok', volts: 12.5 },
                { device: 'many-4', status: 'low' }];
  await client.query(byName, [JSON.stringify(rows)]);

  // ... or whole rows, a parameter for each value
  await client.query(
    `SELECT batchdedup.upsert(ARRAY[ROW($1, $2, $3, $4, $5),
                                    ROW($6, $7, $8, $9, $10)]::device_state[])`,
    ['many-5', 'ok', 12.5, noon, null, 'many-6', 'low', null, noon, null]);

  // null is NULL; what is absent or undefined is not given
  await client.query(byName, [{ device: 'null', status: 'ok', volts: 9.5 }]);
  await client.query(byName, [{ device: 'null', status: null, volts: undefined }]);

  // A jsonb column
  await client.query(upsert, ['json', 'ok', null, noon, { rpm: 1450, parts: ['a', 'b'] }]);

  // Through the view: INSERT ...
  await client.query(
    `INSERT INTO device_state_buffered (device, status, volts, seen_at)
     VALUES ($1, $2, $3, $4), ($5, $6, $7, $8)`,
    ['view-1', 'ok', 12.5, noon, 'view-2', 'low', null, noon]);

  // ... and COPY, with pg-copy-streams
  const lines = ['copy-1,ok,12.5,2026-01-01 12:00+00\n', 'copy-2,low,,2026-01-01 12:00+00\n'];
  await pipeline(Readable.from(lines), client.query(copyFrom(
    'COPY device_state_buffered (device, status, volts, seen_at) FROM STDIN (FORMAT csv)')));

  // Reading what may not be in the table yet
  const result = await client.query(
    "SELECT batchdedup.get('device_state', $1) AS row", [{ device: 'one' }]);
  const row = result.rows[0].row;
  console.log('get:', row.status, row.volts);
}

async function batches() {
  // Batches: with `pipeline` queries are sent without waiting for the answers
  const client = new Client({ pipeline: true });
  await client.connect();
  const send = (i) => client.query({
    name: 'upsert',
    text: 'SELECT batchdedup.upsert(ROW($1, $2, $3, $4, $5)::device_state)',
    values: [`batch-${i % 10}`, 'ok', i, noon, null],
  });
  const sent = [client.query('BEGIN')];
  for (let i = 0; i < 50; i++) sent.push(send(i));
  sent.push(client.query('COMMIT'));
  await Promise.all(sent);

  // Without BEGIN each is a transaction of its own: one that fails leaves the
  // others alone
  const alone = [client.query("SELECT batchdedup.upsert('device_state', $1)", [{ device: null }])];
  for (let i = 50; i < 100; i++) alone.push(send(i));
  const failed = (await Promise.allSettled(alone)).filter((each) => each.status === 'rejected');
  if (failed.length !== 1) throw new Error('one of them has no key');
  await client.end();
}

// Forms that do not work
async function whatDoesNotWork(client) {
  async function refused(message, text, values) {
    try {
      await client.query(text, values);
    } catch (error) {
      if (!error.message.includes(message)) throw error;
      console.log('refused:', message);
      return;
    }
    throw new Error(`not refused: ${text}`);
  }

  await refused('invalid input syntax for type json',
    "SELECT batchdedup.upsert('device_state', $1)", [[{ device: 'x' }]]);
  await refused('malformed record literal: "{"device":"x"}"',
    'SELECT batchdedup.upsert($1::device_state)', [{ device: 'x' }]);
  await refused('malformed record literal: "x"',
    'SELECT batchdedup.upsert($1::device_state[])', [[['x', 'ok', 11.8, noon, null]]]);
  await refused('function batchdedup.upsert(unknown) is not unique',
    'SELECT batchdedup.upsert($1)', [{ device: 'x' }]);
  await refused('function pg_catalog.unnest(unknown) is not unique',
    `SELECT count(batchdedup.upsert_record('device_state', s))
       FROM unnest($1, $2) AS s(device, status)`, [['x'], ['ok']]);
  await refused('cannot insert multiple commands into a prepared statement',
    "SELECT batchdedup.upsert('device_state', $1); SELECT 1", [{ device: 'x' }]);
  await refused('there is no unique or exclusion constraint matching the ON CONFLICT specification',
    "INSERT INTO device_state_buffered VALUES ('x', 'ok') ON CONFLICT (device) DO UPDATE SET status = 'ok'");
}

async function main() {
  const client = new Client();
  await client.connect();
  await examples(client);
  await batches();
  await whatDoesNotWork(client);
  await client.end();
}

main();
