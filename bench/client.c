/*
 * bench/client.c: a client that sends 100 rows per call and takes little time
 * itself; pgbench neither has so many parameters nor COPY.
 *
 *	client FORMAT STATEMENT CLIENTS SECONDS ROWS KEYS EXPONENT
 *
 * Each client is a thread with a connection, and runs the prepared statement
 * for so many seconds, or with SECONDS 0 until all together have sent that
 * many rows.  Keys are distinct within a call and in order; they are uniform
 * among 1 .. KEYS, or zipfian if EXPONENT is not 0.  FORMAT is how rows become
 * parameters: composites (one array of rows), json (one document), arrays (one
 * for each column), values (a parameter for each value), or copy.  Prints the
 * rows sent and the seconds.
 */
#include <libpq-fe.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROWS 100
#define COLUMNS 6
#define ROOM 40000 /* for the texts of a call's rows, or of one column */
#define SAMPLES 100000

#define JSON "{\"model\": \"T-1000\", \"tags\": [\"blue\", \"fast\"], \"seen\": 17}"
/* quoted as an element of an array */
#define JSON_IN_ARRAY "\"{\\\"model\\\": \\\"T-1000\\\", \\\"tags\\\": [\\\"blue\\\", \\\"fast\\\"], \\\"seen\\\": 17}\""
/* quoted as a field of a composite in an array */
#define JSON_IN_ROW "\\\"{\\\"\\\"model\\\"\\\": \\\"\\\"T-1000\\\"\\\", \\\"\\\"tags\\\"\\\": [\\\"\\\"blue\\\"\\\", \\\"\\\"fast\\\"\\\"], \\\"\\\"seen\\\"\\\": 17}\\\""

typedef struct Client
{
	pthread_t thread;
	PGconn *connection;
	unsigned seed;
	long sent;
	long keys[ROWS];
	int status[ROWS];
	double price[ROWS];
	char at[40];
	char text[COLUMNS][ROOM];
	const char *parameters[ROWS * COLUMNS];
	int parameter_count;
} Client;

static const char *format;
static const char *statement;
static double seconds;
static long rows_each;
static long key_count;
static long *samples; /* zipfian keys */
static pthread_barrier_t ready;

static void
fail(const char *message)
{
	fprintf(stderr, "client: %s\n", message);
	exit(1);
}

/* ---------- rows ---------- */

static void
draw_samples(double exponent)
{
	double total = 0;
	double sum = 0;
	long key = 0;

	for (long i = 1; i <= key_count; i++)
		total += pow(i, -exponent);
	samples = malloc(SAMPLES * sizeof(long));
	for (int i = 0; i < SAMPLES; i++)
	{
		while (key < key_count && sum <= total * (i + 0.5) / SAMPLES)
			sum += pow(++key, -exponent);
		samples[i] = key;
	}
}

static long
any_key(Client *client)
{
	if (samples != NULL)
		return samples[rand_r(&client->seed) % SAMPLES];
	return rand_r(&client->seed) % key_count + 1;
}

static int
compare(const void *a, const void *b)
{
	long left = *(const long *) a;
	long right = *(const long *) b;

	return (left > right) - (left < right);
}

static void
draw_rows(Client *client)
{
	int distinct = 0;
	time_t now = time(NULL);
	struct tm utc;

	while (distinct < ROWS)
	{
		int kept = 1;

		while (distinct < ROWS)
			client->keys[distinct++] = any_key(client);
		qsort(client->keys, ROWS, sizeof(long), compare);
		for (int i = 1; i < ROWS; i++)
			if (client->keys[i] != client->keys[kept - 1])
				client->keys[kept++] = client->keys[i];
		distinct = kept;
	}
	for (int i = 0; i < ROWS; i++)
	{
		client->status[i] = rand_r(&client->seed) % 10;
		client->price[i] = rand_r(&client->seed) % 100000 / 100.0;
	}
	strftime(client->at, sizeof(client->at), "%Y-%m-%d %H:%M:%S+00",
			 gmtime_r(&now, &utc));
}

/* ---------- rows as parameters ---------- */

/* All rows in one text: "pattern" gets key, key, status, price, at. */
static void
one_text(Client *client, const char *begin, const char *pattern,
		 const char *separator, const char *end)
{
	char *text = client->text[0];

	text += sprintf(text, "%s", begin);
	for (int i = 0; i < ROWS; i++)
	{
		text += sprintf(text, "%s", i > 0 ? separator : "");
		text += sprintf(text, pattern, client->keys[i], client->keys[i],
						client->status[i], client->price[i], client->at);
	}
	sprintf(text, "%s", end);
	client->parameters[0] = client->text[0];
	client->parameter_count = 1;
}

/* Column "column" of row i; returns its length. */
static int
value(Client *client, char *text, int i, int column, bool in_array)
{
	switch (column)
	{
		case 0:
			return sprintf(text, "%ld", client->keys[i]);
		case 1:
			return sprintf(text, "device %ld", client->keys[i]);
		case 2:
			return sprintf(text, "%d", client->status[i]);
		case 3:
			return sprintf(text, "%.2f", client->price[i]);
		case 4:
			return sprintf(text, "%s", client->at);
		default:
			return sprintf(text, "%s", in_array ? JSON_IN_ARRAY : JSON);
	}
}

static void
arrays(Client *client)
{
	for (int column = 0; column < COLUMNS; column++)
	{
		char *text = client->text[column];

		for (int i = 0; i < ROWS; i++)
		{
			*text++ = i > 0 ? ',' : '{';
			text += value(client, text, i, column, true);
		}
		sprintf(text, "}");
		client->parameters[column] = client->text[column];
	}
	client->parameter_count = COLUMNS;
}

static void
values(Client *client)
{
	char *text = client->text[0];

	client->parameter_count = 0;
	for (int i = 0; i < ROWS; i++)
		for (int column = 0; column < COLUMNS; column++)
		{
			client->parameters[client->parameter_count++] = text;
			text += value(client, text, i, column, false) + 1;
		}
}

static void
make_parameters(Client *client)
{
	draw_rows(client);
	if (strcmp(format, "composites") == 0)
		one_text(client, "{", "\"(%ld,device %ld,%d,%.2f,%s," JSON_IN_ROW ")\"", ",", "}");
	else if (strcmp(format, "json") == 0)
		one_text(client, "[", "{\"id\":%ld,\"name\":\"device %ld\",\"status\":%d,\"price\":%.2f,"
							  "\"at\":\"%s\",\"attributes\":" JSON "}",
				 ",", "]");
	else if (strcmp(format, "copy") == 0)
		one_text(client, "", "%ld\tdevice %ld\t%d\t%.2f\t%s\t" JSON "\n", "", "");
	else if (strcmp(format, "arrays") == 0)
		arrays(client);
	else if (strcmp(format, "values") == 0)
		values(client);
	else
		fail("unknown format");
}

/* ---------- sending ---------- */

static void
expect(Client *client, PGresult *result, ExecStatusType status)
{
	if (PQresultStatus(result) != status &&
		PQresultStatus(result) != PGRES_TUPLES_OK)
		fail(PQerrorMessage(client->connection));
	PQclear(result);
}

static void
send_rows(Client *client)
{
	PGconn *connection = client->connection;

	make_parameters(client);
	if (strcmp(format, "copy") == 0)
	{
		expect(client, PQexec(connection, statement), PGRES_COPY_IN);
		if (PQputCopyData(connection, client->parameters[0],
						  strlen(client->parameters[0])) != 1 ||
			PQputCopyEnd(connection, NULL) != 1)
			fail(PQerrorMessage(connection));
		expect(client, PQgetResult(connection), PGRES_COMMAND_OK);
		PQclear(PQgetResult(connection));
	}
	else
		expect(client,
			   PQexecPrepared(connection, "s", client->parameter_count,
							  client->parameters, NULL, NULL, 0),
			   PGRES_COMMAND_OK);
	client->sent += ROWS;
}

static double
clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static void *
run(void *arg)
{
	Client *client = arg;
	double end;

	client->connection = PQconnectdb("");
	if (PQstatus(client->connection) != CONNECTION_OK)
		fail(PQerrorMessage(client->connection));
	if (strcmp(format, "copy") != 0)
		expect(client, PQprepare(client->connection, "s", statement, 0, NULL),
			   PGRES_COMMAND_OK);
	pthread_barrier_wait(&ready);
	end = clock_now() + seconds;
	while (seconds > 0 ? clock_now() < end : client->sent < rows_each)
		send_rows(client);
	PQfinish(client->connection);
	return NULL;
}

int
main(int argc, char **argv)
{
	int count;
	Client *clients;
	double start;
	long sent = 0;

	if (argc != 8)
		fail("FORMAT STATEMENT CLIENTS SECONDS ROWS KEYS EXPONENT");
	format = argv[1];
	statement = argv[2];
	count = atoi(argv[3]);
	seconds = atof(argv[4]);
	rows_each = atol(argv[5]) / count;
	key_count = atol(argv[6]);
	if (atof(argv[7]) != 0)
		draw_samples(atof(argv[7]));

	clients = calloc(count, sizeof(Client));
	pthread_barrier_init(&ready, NULL, count + 1);
	for (int i = 0; i < count; i++)
	{
		clients[i].seed = time(NULL) * 1000 + i;
		if (pthread_create(&clients[i].thread, NULL, run, &clients[i]) != 0)
			fail("no thread");
	}
	pthread_barrier_wait(&ready);
	start = clock_now();
	for (int i = 0; i < count; i++)
	{
		pthread_join(clients[i].thread, NULL);
		sent += clients[i].sent;
	}
	printf("%ld %f\n", sent, clock_now() - start);
	return 0;
}
