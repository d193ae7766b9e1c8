/*-------------------------------------------------------------------------
 *
 * view.h
 *		Views that write to the buffer and read through it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_VIEW_H
#define BDD_VIEW_H

#include "base/base.h"

extern void bdd_view_init(void);
extern void bdd_views_make_anew(Oid relid);

#endif /* BDD_VIEW_H */
