/*-------------------------------------------------------------------------
 *
 * old_shape.c
 *		Rows from before the table was altered while we were not loaded.
 *
 * With us, ALTER TABLE applies what is buffered first.  Without us it cannot, and
 * then rows in the journal, or in the file of a shutdown, have the columns that
 * the table had.  Each mark keeps the shape of the table at the last apply;
 * so such rows can be taken apart and put together anew, column by column: by
 * attribute number, and where the type has changed, by way of the text form.
 * New columns are not given, columns that are gone are left out.
 *
 *-------------------------------------------------------------------------
 */
#include "target/old_shape.h"

#include "base/compat.h"
#include "lib/stringinfo.h"
#include "sql/spi.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

struct BddOldShape
{
	BddShape shape; /* desc and set_bytes only */
	BddTarget *target;
};

/* ---------- as text ---------- */

/* All that is needed to take a tuple apart, for each column. */
char *
bdd_shape_to_text(TupleDesc desc)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		appendStringInfo(&text, "%s%u %d %d %d %c", i > 0 ? ", " : "",
						 attribute->attisdropped ? InvalidOid : attribute->atttypid,
						 attribute->atttypmod, attribute->attlen,
						 attribute->attbyval, attribute->attalign);
	}
	return text.data;
}

/* How many columns bdd_shape_to_text has put there. */
static int
count_columns(const char *text)
{
	int count = *text != '\0';

	for (; *text != '\0'; text++)
		count += *text == ',';
	return count;
}

/* NULL: the text is none of ours. */
static TupleDesc
text_to_desc(const char *text)
{
	int natts = count_columns(text);
	TupleDesc desc = CreateTemplateTupleDesc(natts);

	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		Oid type;
		int typmod;
		int length;
		int by_value;
		char align;

		if (sscanf(text, "%u %d %d %d %c", &type, &typmod, &length, &by_value, &align) != 5)
			return NULL;
		attribute->attnum = i + 1;
		attribute->atttypid = type;
		attribute->atttypmod = typmod;
		attribute->attlen = length;
		attribute->attbyval = by_value != 0;
		attribute->attalign = align;
		attribute->attisdropped = !OidIsValid(type);
		bdd_finish_attribute(desc, i);
		text = strchr(text, ',');
		text = text != NULL ? text + 1 : "";
	}
	bdd_finish_desc(desc);
	return desc;
}

/* ---------- the shape that the table had ---------- */

/* The shape that the table had when it was last applied; NULL: not known. */
const BddOldShape *
bdd_old_shape(BddTarget *target)
{
	char *text = bdd_mark_shape(target->options.target_id);
	TupleDesc desc = text != NULL ? text_to_desc(text) : NULL;
	BddOldShape *old;

	if (desc == NULL || desc->natts > target->shape.desc->natts)
		return NULL;
	old = palloc0(sizeof(BddOldShape));
	old->shape.desc = desc;
	old->shape.set_bytes = (desc->natts + 7) / 8;
	old->target = target;
	return old;
}

/* Whether rows with the fingerprint have the shape that the table had. */
bool
bdd_old_shape_fits(const BddOldShape *old, uint32 fingerprint)
{
	return old != NULL && bdd_fingerprint(old->shape.desc) == fingerprint;
}

/* Nothing can be done with rows of a shape that is not known. */
void
bdd_report_other_shape(BddTarget *target)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("rows buffered for \"%s\" have another shape than the table",
					get_rel_name(target->relid)),
			 errdetail("The table was changed while batchdedup was not loaded, and nobody knows what it was before."),
			 errhint("Change the table's columns back, or TRUNCATE it to discard the rows.")));
}

/* ---------- rows ---------- */

/*
 * By way of the text form if the type or its modifier has changed.  That may
 * fail, and runs functions of the type: the caller acts as the owner.
 */
static Datum
convert(Datum value, Form_pg_attribute from, Form_pg_attribute to)
{
	Oid output;
	Oid input;
	Oid parameter;
	bool varlena;

	if (from->atttypid == to->atttypid && from->atttypmod == to->atttypmod)
		return value;
	getTypeOutputInfo(from->atttypid, &output, &varlena);
	getTypeInputInfo(to->atttypid, &input, &parameter);
	return OidInputFunctionCall(input, OidOutputFunctionCall(output, value),
								parameter, to->atttypmod);
}

/* Whether the column is in a set of the old image. */
static bool
old_has(const BddOldShape *old, const BddImage *image, int i, bool update)
{
	const BddShape *now = &old->target->shape;

	if (i >= old->shape.desc->natts ||
		TupleDescAttr(old->shape.desc, i)->attisdropped ||
		!bdd_column_in(now->insert, i))
		return false;
	if (image->full)
		return !update || bdd_column_in(now->update, i);
	return bdd_column_in(update ? bdd_image_update(&old->shape, image) :
								  bdd_image_insert(&old->shape, image),
						 i);
}

/* The image as it is with the table's columns of today. */
BddImage
bdd_image_renew(const BddOldShape *old, const BddImage *image)
{
	const BddShape *now = &old->target->shape;
	int natts = now->desc->natts;
	Datum *values = palloc0(natts * sizeof(Datum));
	bool *isnull = palloc(natts * sizeof(bool));
	BddColumns *update = palloc0(2 * now->set_bytes);
	BddColumns *insert = update + now->set_bytes;
	BddSavedRole saved;
	BddImage renewed;

	memset(isnull, true, natts * sizeof(bool));
	bdd_image_deform(&old->shape, image, values, isnull);
	bdd_become_owner_of(old->target->owner, &saved);
	for (int i = 0; i < natts; i++)
	{
		if (!old_has(old, image, i, false))
			continue;
		bdd_column_add(insert, i);
		if (old_has(old, image, i, true))
			bdd_column_add(update, i);
		if (!isnull[i])
			values[i] = convert(values[i], TupleDescAttr(old->shape.desc, i),
								TupleDescAttr(now->desc, i));
	}
	bdd_restore_role(&saved);
	renewed = bdd_image_from_values(now, image->op, values, isnull, update,
									insert);
	pfree(values);
	pfree(isnull);
	pfree(update);
	return renewed;
}

/* The same of the bytes that the journal has. */
BddImage
bdd_image_from_old(const BddOldShape *old, BddOp op, bool full,
				   const char *data, uint32 size)
{
	BddImage image = bdd_image_unpack(&old->shape, op, full, data, size);
	BddImage renewed = bdd_image_renew(old, &image);

	pfree(image.data);
	return renewed;
}
