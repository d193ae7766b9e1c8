/*
 * libpq: the examples of docs/drivers.md. t/drivers.pl builds and runs
 * this file and looks at the table.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static PGconn *conn;

static void
die(const char *what)
{
	fprintf(stderr, "%s: %s", what, PQerrorMessage(conn));
	exit(1);
}

/* The next result of what was sent */
static void
expect(ExecStatusType status)
{
	PGresult *result = PQgetResult(conn);

	if (PQresultStatus(result) != status)
		die(PQresStatus(PQresultStatus(result)));
	PQclear(result);
	PQgetResult(conn); /* NULL: there is no other */
}

/* Runs a command with n text parameters */
static void
command(const char *sql, int n, const char *const *values)
{
	if (!PQsendQueryParams(conn, sql, n, NULL, values, NULL, NULL, 0))
		die(sql);
	expect(PGRES_COMMAND_OK);
}

/* Runs a query with n text parameters; the first value of its result. */
static const char *
query(const char *sql, int n, const char *const *values)
{
	static PGresult *result;

	PQclear(result);
	result = PQexecParams(conn, sql, n, NULL, values, NULL, NULL, 0);
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die(sql);
	return PQgetvalue(result, 0, 0);
}

#define NOON "2026-01-01 12:00+00"

/* Types of the parameters are left open: the cast tells them. */
static const char *const upsert = "SELECT batchdedup.upsert(ROW($1, $2, $3, $4, $5)::device_state)";
static const char *const by_name = "SELECT batchdedup.upsert('device_state', $1)";

static void
examples(void)
{
	/* One row */
	const char *one[] = {"one", "ok", "11.8", NOON, NULL};

	query(upsert, 5, one);

	/* Many rows in one call: columns by name, an array for each */
	const char *arrays[] = {"{many-1,many-2}", "{ok,low}", "{12.5,NULL}"};

	query("SELECT count(batchdedup.upsert_record('device_state', s))"
		  "  FROM unnest($1::text[], $2::text[], $3::numeric[]) AS s(device, status, volts)",
		  3, arrays);

	/* ... or JSON */
	const char *json[] = {"[{\"device\": \"many-3\", \"status\": \"ok\", \"volts\": 12.5},"
						  " {\"device\": \"many-4\", \"status\": \"low\"}]"};

	query(by_name, 1, json);

	/* ... or whole rows, a parameter for each value */
	const char *rows[] = {"many-5", "ok", "12.5", NOON, NULL, "many-6", "low", NULL, NOON, NULL};

	query("SELECT batchdedup.upsert(ARRAY[ROW($1, $2, $3, $4, $5),"
		  "                               ROW($6, $7, $8, $9, $10)]::device_state[])",
		  10, rows);

	/* A null pointer is NULL; what is absent is not given */
	const char *before[] = {"{\"device\": \"null\", \"status\": \"ok\", \"volts\": 9.5}"};
	const char *after[] = {"{\"device\": \"null\", \"status\": null}"};

	query(by_name, 1, before);
	query(by_name, 1, after);

	/* A jsonb column */
	const char *extra[] = {"json", "ok", NULL, NOON, "{\"rpm\": 1450, \"parts\": [\"a\", \"b\"]}"};

	query(upsert, 5, extra);

	/* Through the view: INSERT ... */
	const char *view[] = {"view-1", "ok", "12.5", NOON, "view-2", "low", NULL, NOON};

	command("INSERT INTO device_state_buffered (device, status, volts, seen_at)"
			" VALUES ($1, $2, $3, $4), ($5, $6, $7, $8)",
			8, view);

	/* ... and COPY */
	const char *lines = "copy-1\tok\t12.5\t2026-01-01 12:00+00\n"
						"copy-2\tlow\t\\N\t2026-01-01 12:00+00\n";

	PQclear(PQexec(conn, "COPY device_state_buffered (device, status, volts, seen_at) FROM STDIN"));
	if (PQputCopyData(conn, lines, (int) strlen(lines)) != 1 || PQputCopyEnd(conn, NULL) != 1)
		die("COPY");
	expect(PGRES_COMMAND_OK);

	/* Reading what may not be in the table yet */
	const char *key[] = {"{\"device\": \"one\"}"};

	printf("get: %s\n", query("SELECT concat_ws(' ', r ->> 'status', r ->> 'volts')"
							  "  FROM batchdedup.get('device_state', $1) AS r",
							  1, key));
}

static void
expect_sync(void)
{
	PGresult *result = PQgetResult(conn);

	if (PQresultStatus(result) != PGRES_PIPELINE_SYNC)
		die("PQpipelineSync");
	PQclear(result);
}

/* Batches: what is sent up to a sync is one transaction */
static void
batches(void)
{
	PQclear(PQprepare(conn, "upsert", upsert, 0, NULL));
	if (!PQenterPipelineMode(conn))
		die("PQenterPipelineMode");
	for (int i = 0; i < 100; i++)
	{
		char device[20], volts[20];
		const char *values[] = {device, "ok", volts, NOON, NULL};

		sprintf(device, "batch-%d", i % 10);
		sprintf(volts, "%d", i);
		if (!PQsendQueryPrepared(conn, "upsert", 5, values, NULL, NULL, 0))
			die("PQsendQueryPrepared");
	}
	if (!PQpipelineSync(conn))
		die("PQpipelineSync");
	for (int i = 0; i < 100; i++)
		expect(PGRES_TUPLES_OK);
	expect_sync();
	PQexitPipelineMode(conn);
}

/* ---------- forms that do not work ---------- */

static void
refused(const char *message, PGresult *result)
{
	if (!strstr(PQerrorMessage(conn), message))
		die("not refused as expected");
	printf("refused: %s\n", message);
	PQclear(result);
}

static void
what_does_not_work(void)
{
	const char *json[] = {"{\"device\": \"x\"}"};
	const char *no_key[] = {"{\"device\": null}"};
	const char *row[] = {"(x,ok,11.8,now,)"};
	int length[] = {(int) strlen(json[0])};
	int binary[] = {1};
	Oid text[] = {25};

	refused("function batchdedup.upsert(unknown) is not unique",
			PQexecParams(conn, "SELECT batchdedup.upsert($1)", 1, NULL, row, NULL, NULL, 0));
	refused("function batchdedup.upsert(unknown, text) does not exist",
			PQexecParams(conn, by_name, 1, text, json, NULL, NULL, 0));
	refused("unsupported jsonb version number 123",
			PQexecParams(conn, by_name, 1, NULL, json, length, binary, 0));
	refused("cannot insert multiple commands into a prepared statement",
			PQexecParams(conn, "SELECT batchdedup.upsert('device_state', $1); SELECT 1", 1, NULL,
						 json, NULL, NULL, 0));
	refused("there is no unique or exclusion constraint matching the ON CONFLICT specification",
			PQexec(conn, "INSERT INTO device_state_buffered VALUES ('x', 'ok')"
						 " ON CONFLICT (device) DO UPDATE SET status = 'ok'"));
	PQenterPipelineMode(conn);
	refused("synchronous command execution functions are not allowed in pipeline mode",
			PQexec(conn, "SELECT batchdedup.upsert('device_state', '{\"device\": \"x\"}')"));

	/* One row that is refused: those before and after it are not there either */
	PQsendQueryParams(conn, by_name, 1, NULL, json, NULL, NULL, 0);
	PQsendQueryParams(conn, by_name, 1, NULL, no_key, NULL, NULL, 0);
	PQsendQueryParams(conn, by_name, 1, NULL, json, NULL, NULL, 0);
	PQpipelineSync(conn);
	expect(PGRES_TUPLES_OK);
	refused("null value in key column \"device\"", PQgetResult(conn));
	PQgetResult(conn);
	expect(PGRES_PIPELINE_ABORTED);
	expect_sync();
	PQexitPipelineMode(conn);
}

int
main(void)
{
	conn = PQconnectdb("");
	if (PQstatus(conn) != CONNECTION_OK)
		die("PQconnectdb");
	examples();
	batches();
	what_does_not_work();
	PQfinish(conn);
	return 0;
}
