/*-------------------------------------------------------------------------
 *
 * moment_text.h
 *		Moments as text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_MOMENT_TEXT_H
#define BDD_MOMENT_TEXT_H

#include "base/base.h"

#include "sync/sync_bound.h"

extern char *bdd_moment_out(const BddMoment *moment);
extern BddMoment *bdd_moment_in(const char *text);

#endif /* BDD_MOMENT_TEXT_H */
