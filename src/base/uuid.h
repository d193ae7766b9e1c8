/*-------------------------------------------------------------------------
 *
 * uuid.h
 *		UUIDs: new ones, as text, in arrays.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_UUID_H
#define BDD_UUID_H

#include "base/base.h"

#include "utils/uuid.h"

extern pg_uuid_t *bdd_new_uuid(void);
extern char *bdd_uuid_text(const pg_uuid_t *uuid);
extern Datum bdd_uuid_array(Datum *ids, int count);

#endif /* BDD_UUID_H */
