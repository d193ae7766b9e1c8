/*-------------------------------------------------------------------------
 *
 * canonical.h
 *		Writing JSON in one spelling.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_CANONICAL_H
#define BDD_CANONICAL_H

#include "base/base.h"

#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

/* What becomes of a number that a double cannot say. */
typedef enum BddInexact
{
	BDD_INEXACT_ERROR,
	BDD_INEXACT_STRING, /* the exact decimal, as a string */
	BDD_INEXACT_ROUND,  /* the nearest double */
	BDD_ALL_DECIMAL     /* every number is written as its exact decimal */
} BddInexact;

typedef struct BddCanonical
{
	StringInfoData out; /* begins with the room of a varlena's header */
	BddInexact inexact;
	const ArrayType *exclude; /* keys of the outermost object to leave out, or NULL */
} BddCanonical;

extern void bdd_canonical_start(BddCanonical *canonical, BddInexact inexact, Size expected);
extern void bdd_canonical_document(BddCanonical *canonical, Jsonb *document);
extern void bdd_canonical_number(BddCanonical *canonical, Numeric number);
extern void bdd_canonical_string(StringInfo out, const char *string, int size);
extern Datum bdd_canonical_version(BddCanonical *canonical);
extern Datum bdd_canonical_version_of(Jsonb *document, ArrayType *exclude);
extern int bdd_canonical_compare(const char *left, int left_size, const char *right,
								 int right_size);
extern bool bdd_canonical_excluded(const ArrayType *exclude, const char *key, int size);

/* Where so many bytes can be written; the caller adds to out->len. */
static inline char *
bdd_canonical_room(StringInfo out, int bytes)
{
	if (unlikely(out->maxlen - out->len <= bytes))
		enlargeStringInfo(out, bytes);
	return out->data + out->len;
}

static inline void
bdd_canonical_byte(StringInfo out, char byte)
{
	*bdd_canonical_room(out, 1) = byte;
	out->len++;
}

static inline void
bdd_canonical_bytes(StringInfo out, const char *bytes, int size)
{
	memcpy(bdd_canonical_room(out, size), bytes, size);
	out->len += size;
}

#endif /* BDD_CANONICAL_H */
