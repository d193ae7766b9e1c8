--
-- flush_group: targets that are sealed at one moment and applied in one transaction
--
\a
\pset footer off
\pset null (null)
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA regress_groups;
SET search_path = regress_groups;

CREATE TABLE account (id int PRIMARY KEY, owner text);
CREATE TABLE position (id int PRIMARY KEY, account int REFERENCES account, size int CHECK (size < 1000));
CREATE TABLE trade (id int PRIMARY KEY, position int REFERENCES position, size int);
SELECT batchdedup.create_target('trade', flush_group => '');
-- children have the lower OIDs in no order at all
SELECT batchdedup.create_target(t, flush_group => 'trading', flush_interval => '0', flush_rows => 0, guard => 'off')
  FROM unnest('{trade,account,position}'::regclass[]) t;
SELECT target, flush_group FROM batchdedup.target WHERE flush_group = 'trading' ORDER BY target::text;

-- one is flushed: all are, in one transaction, parents first
BEGIN;
SELECT batchdedup.upsert('trade', '[{"id": 1, "position": 1, "size": 5}, {"id": 2, "position": 2, "size": 7}]');
SELECT batchdedup.upsert('position', '[{"id": 1, "account": 1, "size": 5}, {"id": 2, "account": 1, "size": 7}]');
SELECT batchdedup.upsert('account', '{"id": 1, "owner": "a"}');
COMMIT;
SELECT batchdedup.flush('trade');
-- the others say so a moment later
SELECT batchdedup.flush('account', 'position') >= 0 AS others;
SELECT target, buffered_rows, flushes FROM batchdedup.stat_target WHERE target IN ('trade'::regclass, 'position'::regclass, 'account'::regclass) ORDER BY target::text;
SELECT count(*) FROM batchdedup.dead_letter;

-- deletes the other way round, and rows that replace them
BEGIN;
SELECT batchdedup.delete('account', '{"id": 1}');
SELECT batchdedup.delete('position', '[{"id": 1}, {"id": 2}]');
SELECT batchdedup.delete('trade', '[{"id": 1}, {"id": 2}]');
SELECT batchdedup.upsert('account', '{"id": 2, "owner": "b"}');
SELECT batchdedup.upsert('position', '{"id": 3, "account": 2, "size": 1}');
SELECT batchdedup.upsert('trade', '{"id": 3, "position": 3, "size": 1}');
COMMIT;
SELECT batchdedup.flush('account', 'position', 'trade') >= 0 AS flushed;
SELECT count(*) FROM batchdedup.dead_letter;
SELECT * FROM account, position, trade;

-- the same keys once more: what refers to them goes before, and comes after
BEGIN;
SELECT batchdedup.delete('trade', '{"id": 3}');
SELECT batchdedup.delete('position', '{"id": 3}');
SELECT batchdedup.delete('account', '{"id": 2}');
SELECT batchdedup.upsert('account', '{"id": 2, "owner": "c"}');
SELECT batchdedup.upsert('position', '{"id": 3, "account": 2, "size": 2}');
SELECT batchdedup.upsert('trade', '{"id": 3, "position": 3, "size": 2}');
COMMIT;
SELECT batchdedup.flush('account', 'position', 'trade') >= 0 AS flushed;
SELECT target, key, sqlstate FROM batchdedup.dead_letter;
SELECT * FROM account, position, trade;

-- a refused row of one does not hold back the group, and takes its children along
SELECT batchdedup.upsert('position', '[{"id": 4, "account": 2, "size": 1000}, {"id": 5, "account": 2, "size": 5}]');
SELECT batchdedup.upsert('trade', '[{"id": 4, "position": 4, "size": 1}, {"id": 5, "position": 5, "size": 1}]');
SELECT batchdedup.flush() >= 0 AS flushed;
SELECT id FROM position ORDER BY id;
SELECT id FROM trade ORDER BY id;
SELECT target, key, sqlstate FROM batchdedup.dead_letter ORDER BY target::text;
SELECT batchdedup.discard_dead_letters('position'), batchdedup.discard_dead_letters('trade');

-- a fault of one table keeps all of them waiting
CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.nothing := 1; RETURN NEW; END';
CREATE TRIGGER broken BEFORE INSERT OR UPDATE ON position FOR EACH ROW EXECUTE FUNCTION broken();
BEGIN;
SELECT batchdedup.upsert('position', '{"id": 6, "account": 2, "size": 6}');
SELECT batchdedup.upsert('trade', '{"id": 6, "position": 6, "size": 1}');
COMMIT;
SELECT batchdedup.flush('trade');
\echo :SQLSTATE
SELECT target, buffered_rows, failures > 0 AS fails, last_error_sqlstate FROM batchdedup.stat_target WHERE target IN ('trade'::regclass, 'position'::regclass) ORDER BY target::text;
SELECT count(*) FROM trade WHERE id = 6;
DROP TRIGGER broken ON position;
SELECT batchdedup.flush('trade') >= 0 AS flushed;
SELECT count(*) FROM trade JOIN position USING (id) WHERE id = 6;

-- so does one that is paused
SELECT batchdedup.pause('position');
BEGIN;
SELECT batchdedup.upsert('position', '{"id": 7, "account": 2, "size": 7}');
SELECT batchdedup.upsert('trade', '{"id": 7, "position": 7, "size": 1}');
COMMIT;
SELECT batchdedup.flush('trade');
\echo :SQLSTATE
SELECT count(*) FROM trade WHERE id = 7;
SELECT batchdedup.resume('position');
SELECT batchdedup.flush('trade') >= 0 AS flushed;
SELECT count(*) FROM trade JOIN position USING (id) WHERE id = 7;

-- DDL of a member brings in that member alone
SELECT batchdedup.upsert('position', '{"id": 8, "account": 2, "size": 8}');
SELECT batchdedup.upsert('account', '{"id": 3, "owner": "c"}');
ALTER TABLE account ADD COLUMN note text;
SELECT count(*) FROM account WHERE id = 3;
SELECT count(*) FROM position WHERE id = 8;

-- out of the group
SELECT batchdedup.alter_target('account', reset => 'flush_group');
SELECT target FROM batchdedup.target WHERE flush_group = 'trading' ORDER BY target::text;
SELECT batchdedup.upsert('account', '{"id": 4, "owner": "d"}');
SELECT batchdedup.flush('trade', 'position') >= 0 AS flushed;
SELECT count(*) FROM account WHERE id = 4;
SELECT batchdedup.drop_target('trade'), batchdedup.drop_target('position'), batchdedup.drop_target('account');
SELECT count(*) FROM account WHERE id = 4;

-- there is a limit
DO $$
BEGIN
    FOR i IN 1 .. 65 LOOP
        EXECUTE format('CREATE TABLE many%s (id int PRIMARY KEY)', i);
        PERFORM batchdedup.create_target(format('many%s', i)::regclass, flush_group => CASE WHEN i < 65 THEN 'many' END);
    END LOOP;
END $$;
SELECT batchdedup.alter_target('many65', flush_group => 'many');
SELECT batchdedup.alter_target('many64', reset => 'flush_group'), batchdedup.alter_target('many65', flush_group => 'many');
SELECT count(*) FROM batchdedup.target WHERE flush_group = 'many';

DROP SCHEMA regress_groups CASCADE;
