/*-------------------------------------------------------------------------
 *
 * old_shape.h
 *		Rows from before the table was altered while we were not loaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_OLD_SHAPE_H
#define BDD_OLD_SHAPE_H

#include "base/base.h"

#include "target/target.h"

typedef struct BddOldShape BddOldShape;

extern char *bdd_shape_to_text(TupleDesc desc);
extern const BddOldShape *bdd_old_shape(BddTarget *target);
extern bool bdd_old_shape_fits(const BddOldShape *old, uint32 fingerprint);
extern void bdd_report_other_shape(BddTarget *target);
extern BddImage bdd_image_from_old(const BddOldShape *old, BddOp op, bool full,
								   const char *data, uint32 size);
extern BddImage bdd_image_renew(const BddOldShape *old, const BddImage *image);

#endif /* BDD_OLD_SHAPE_H */
