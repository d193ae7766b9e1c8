# What newer servers have and older ones do not. Where an older server has
# something that must do the same, the test uses that; elsewhere it sees that
# the older server refuses the statement, and that nothing else is to test.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql fails);

start_server('versions', <<'CONF');
batchdedup.flush_interval = 0
client_min_messages = warning
CONF

sql('CREATE EXTENSION batchdedup');
my $major = int(sql('SHOW server_version_num') / 10000);

# Runs the statement if the server is new enough to know it.
sub since
{
	my ($first, $sql, $name) = @_;
	if ($major < $first)
	{
		fails($sql, qr/42601/, "$name: unknown before PostgreSQL $first");
		return 0;
	}
	sql($sql);
	return 1;
}

# ---------- generated columns that are not stored (18) ----------

my $virtual = $major >= 18 ? 'VIRTUAL' : 'STORED';
sql(<<"SQL");
CREATE TABLE made (id int PRIMARY KEY, gone int, a int, b int NOT NULL DEFAULT 3,
    twice int GENERATED ALWAYS AS (a * 2) $virtual NOT NULL CHECK (twice < 100),
    words text COLLATE "C" GENERATED ALWAYS AS (a::text || ' apples') $virtual,
    total int GENERATED ALWAYS AS (a + b) STORED);
ALTER TABLE made DROP gone;
SELECT batchdedup.create_target('made');
SQL
fails("SELECT batchdedup.upsert(ROW(1, 5, 4, 10, NULL, NULL)::made)", qr/428C9/, "$virtual column: cannot be given in a row");
fails("SELECT batchdedup.upsert('made', '{\"id\": 1, \"twice\": 10}')", qr/428C9/, "$virtual column: nor in a document");
fails("SELECT batchdedup.create_target('made', key => 'twice', if_not_exists => false)", qr/42\w{3}/, "$virtual column: is no key");
sql(q{SELECT batchdedup.upsert(ROW(1, 5, 4, NULL, NULL, NULL)::made);
	SELECT batchdedup.upsert('made', '[{"id": 2, "a": 8}, {"id": 3, "a": 60}, {"id": 4}]')});
is(sql(q{SELECT id, twice, words, total FROM batchdedup.buffered(NULL::made) WHERE twice = 10}),
	'1|10|5 apples|9', "$virtual column: buffered() computes it");
is(sql(q{SELECT batchdedup.get('made', '{"id": 2}')}),
	'{"a": 8, "b": 3, "id": 2, "total": 11, "twice": 16, "words": "8 apples"}', "$virtual column: so does get()");
is(sql("SELECT batchdedup.flush('made')"), 2, "$virtual column: rows are applied");
is(sql("SELECT * FROM made ORDER BY id"), "1|5|4|10|5 apples|9\n2|8|3|16|8 apples|11", "$virtual column: the table computes it");
is(sql("SELECT key ->> 'id', sqlstate, row ? 'twice' FROM batchdedup.dead_letter ORDER BY 1"),
	"3|23514|f\n4|23502|f", "$virtual column: its CHECK and NOT NULL refuse rows");
sql(q{SELECT batchdedup.upsert('made', '{"id": 1, "a": 6}')});
is(sql(q{SELECT j ->> 'twice', j ->> 'words', j ->> 'total' FROM batchdedup.get('made', '{"id": 1}') j}),
	'12|6 apples|10', "$virtual column: get() computes it from table and buffer");
is(sql("SELECT batchdedup.flush('made')"), 1, "$virtual column: a row is updated");
is(sql("SELECT * FROM made WHERE id = 1"), '1|6|4|12|6 apples|10', "$virtual column: and the column with it");
sql("SELECT count(batchdedup.upsert_record('made', r)) FROM (SELECT id, a FROM made) r");
sql("SELECT batchdedup.flush('made')");
is(sql("SELECT inserted, updated, unchanged FROM batchdedup.stat_target WHERE target = 'made'::regclass"),
	'2|1|2', "$virtual column: rows that change nothing are not written");
sql(q{SET batchdedup.enabled = off; SELECT batchdedup.upsert(ROW(1, 7, 4, NULL, NULL, NULL)::made)});
is(sql("SELECT * FROM made WHERE id = 1"), '1|7|4|14|7 apples|11', "$virtual column: written directly");
sql(q{BEGIN; SELECT batchdedup.upsert('made', '{"id": 2, "a": 9}'); ALTER TABLE made DROP words; COMMIT});
is(sql("SELECT * FROM made WHERE id = 2"), '2|9|3|18|12', "$virtual column: dropped while rows are buffered");

# ---------- keys WITHOUT OVERLAPS (18) ----------

if (since(18, 'CREATE TABLE booking (room int4range, during daterange, no int UNIQUE NOT NULL, guest text, '
		. 'PRIMARY KEY (room, during WITHOUT OVERLAPS))', 'WITHOUT OVERLAPS'))
{
	fails("SELECT batchdedup.create_target('booking')",
		qr/0A000: the primary key of table "booking" is WITHOUT OVERLAPS/, 'WITHOUT OVERLAPS: is no key of a target');
	fails("SELECT batchdedup.create_target('booking', key => 'room, during')",
		qr/42P16: table "booking" has no unique index on \(room, during\)/, 'WITHOUT OVERLAPS: nor when it is named');
	sql(q{SELECT batchdedup.create_target('booking', key => 'no');
		SELECT batchdedup.upsert('booking', '[{"no": 1, "room": "[1,1]", "during": "[2026-01-01,2026-01-03)", "guest": "Ada"},
			{"no": 2, "room": "[1,1]", "during": "[2026-01-02,2026-01-05)", "guest": "Bob"},
			{"no": 3, "room": "[2,2]", "during": "[2026-01-02,2026-01-05)", "guest": "Cleo"}]');
		SELECT batchdedup.flush('booking')});
	is(sql("SELECT no, guest FROM booking ORDER BY no"), "1|Ada\n3|Cleo", 'WITHOUT OVERLAPS: with another key rows are applied');
	is(sql("SELECT key, sqlstate FROM batchdedup.dead_letter WHERE target = 'booking'::regclass"),
		'{"no": 2}|23P01', 'WITHOUT OVERLAPS: and what overlaps is refused');
}

# ---------- constraints that are not enforced (18) ----------

sql('CREATE TABLE parent (id int PRIMARY KEY)');
if (since(18, 'CREATE TABLE child (id int PRIMARY KEY, parent int, '
		. 'CONSTRAINT of_parent FOREIGN KEY (parent) REFERENCES parent DEFERRABLE NOT ENFORCED, v int CHECK (v > 0) NOT ENFORCED)',
		'NOT ENFORCED'))
{
	sql(q{SELECT batchdedup.create_target('child'); SELECT batchdedup.upsert('child', '{"id": 1, "parent": 26, "v": -1}')});
	is(sql("SELECT batchdedup.flush('child')"), 1, 'NOT ENFORCED: does not refuse');
	sql(q{BEGIN; SELECT batchdedup.upsert('child', '{"id": 2, "parent": 27, "v": -1}'); ALTER TABLE child ADD w int; COMMIT});
	is(sql("SELECT id, parent, v FROM child ORDER BY id"), "1|26|-1\n2|27|-1", 'NOT ENFORCED: nor in ALTER TABLE');
	sql(q{TRUNCATE child; SELECT batchdedup.upsert('child', '{"id": 3, "parent": 28}')});
	fails('ALTER TABLE child ALTER CONSTRAINT of_parent ENFORCED', qr/23503/, 'ENFORCED: looks at rows in the buffer');
	is(sql("SELECT parent FROM batchdedup.buffered(NULL::child)"), 28, 'ENFORCED: which stay there when it fails');
	sql('INSERT INTO parent VALUES (28); ALTER TABLE child ALTER CONSTRAINT of_parent ENFORCED');
	is(sql("SELECT id, parent FROM child"), '3|28', 'ENFORCED: and are applied when it does not');
}

# ---------- NOT NULL that old rows do not obey (18) ----------

sql('CREATE TABLE half (k int UNIQUE, v int); INSERT INTO half VALUES (NULL, 1)');
if (since(18, 'ALTER TABLE half ADD NOT NULL k NOT VALID', 'NOT NULL NOT VALID'))
{
	sql(q{SELECT batchdedup.create_target('half', key => 'k'); SELECT batchdedup.upsert('half', '{"k": 2, "v": 2}')});
	fails(q{SELECT batchdedup.upsert('half', '{"k": null, "v": 2}')}, qr/23502/, 'NOT NULL NOT VALID: new rows obey it');
	is(sql("SELECT batchdedup.flush('half')"), 1, 'NOT NULL NOT VALID: a row is applied');
	is(sql("SELECT k, v FROM half ORDER BY v"), "|1\n2|2", 'NOT NULL NOT VALID: and the old one left alone');
}

# ---------- identity columns of partitions (17) ----------

sql(<<'SQL');
CREATE TABLE parted (id bigint GENERATED ALWAYS AS IDENTITY, k int PRIMARY KEY, v int) PARTITION BY RANGE (k);
CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10);
SQL
# before 17 a partition has no part in it
my $id = $major >= 17 ? '' : '"id": 1, ';
sql(qq{SELECT batchdedup.create_target('low'); SELECT batchdedup.upsert('low', '{$id"k": 2, "v": 1}')});
is(sql("SELECT batchdedup.flush('low')"), 1, 'identity of a partition: a row is inserted');
sql(qq{SELECT batchdedup.upsert('low', '{"k": 2, "v": 2}'); SELECT batchdedup.flush('low')});
is(sql("SELECT * FROM parted"), '1|2|2', 'identity of a partition: its number stays');

# ---------- INSERT ... ON CONFLICT DO SELECT (19) ----------

sql(q{CREATE TABLE guarded (k int PRIMARY KEY, v int); SELECT batchdedup.create_target('guarded', guard => 'error')});
if (since(19, 'INSERT INTO guarded VALUES (1, 1) ON CONFLICT (k) DO SELECT RETURNING *', 'ON CONFLICT DO SELECT'))
{
	sql(q{SELECT batchdedup.upsert(ROW(2, 2)::guarded)});
	fails('INSERT INTO guarded VALUES (2, 1) ON CONFLICT (k) DO SELECT RETURNING *', qr/55006/, 'ON CONFLICT DO SELECT: is guarded');
	sql(q{SELECT batchdedup.flush('guarded')});
	is(sql('INSERT INTO guarded VALUES (2, 1) ON CONFLICT (k) DO SELECT RETURNING *'), '2|2', 'ON CONFLICT DO SELECT: sees what is applied');
}

$node->stop;
done_testing();
