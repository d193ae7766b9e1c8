#include "sync_bound.h"
#include "utils/timestamp.h"
BddMoment *
bdd_moment_take(void)
{
	BddMoment *m = palloc0(sizeof(BddMoment));
	m->at = GetCurrentTimestamp();
	return m;
}
BddMoment *
bdd_moment_take_sequence(Oid s, int64 *l, bool *c)
{
	return NULL;
}
bool
bdd_moment_is_over(BddMoment *m)
{
	return true;
}
bool
bdd_moment_wait(BddMoment *m, int t)
{
	return true;
}
bool
bdd_moment_bound(const BddMoment *m, TimestampTz *b)
{
	*b = m->at - 1;
	return true;
}
char *
bdd_moment_out(const BddMoment *m)
{
	return "x";
}
BddMoment *
bdd_moment_in(const char *t)
{
	return NULL;
}
char *
bdd_moment_holders(const BddMoment *m)
{
	return NULL;
}
