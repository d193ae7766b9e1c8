/*-------------------------------------------------------------------------
 *
 * describe.h
 *		What a session knows of a target: the options and the table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_DESCRIBE_H
#define BDD_DESCRIBE_H

#include "base/base.h"

#include "buffer/registry.h"
#include "nodes/execnodes.h"
#include "row/key.h"
#include "row/rowimage.h"
#include "target/options.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"

/* In front of the triggers with usual names, which shall fire at the apply. */
#define BDD_REDIRECT_TRIGGER "!batchdedup_redirect"

/* Where a column that is not given takes its value for an insert. */
typedef enum BddDefault
{
	BDD_DEFAULT_NONE,    /* dropped or generated: from nowhere */
	BDD_DEFAULT_NULL,    /* there is none */
	BDD_DEFAULT_AT_CALL, /* constant or stable */
	BDD_DEFAULT_AT_APPLY /* volatile, or identity */
} BddDefault;

typedef struct BddTargetColumn
{
	BddDefault source;
	bool generated;
	bool identity;
	bool identity_always;
	Expr *default_expr;       /* not planned; of BDD_DEFAULT_AT_CALL */
	ExprState *default_state; /* made at first use */
	Oid sequence;             /* of an identity; looked up at first use */
} BddTargetColumn;

/* What DDL has done to a target. */
typedef enum BddUsability
{
	BDD_USABLE,
	BDD_LACKS_COLUMN,
	BDD_LACKS_INDEX,
	BDD_LACKS_RULE
} BddUsability;

/*
 * A session's knowledge of a target.  It is made anew after the table or the
 * options change; an old one lives as long as a transaction may use it.
 */
typedef struct BddTarget
{
	Oid relid;
	bool valid;
	uint64 serial; /* never the same for two targets */
	MemoryContext context;
	struct BddTarget *retired; /* next of those no longer valid */
	LocalTransactionId retired_in;
	BddUsability broken;
	char *lacking; /* column that is gone, or why there is no such rule */
	BddOptions options;
	Oid row_type;
	Oid owner;
	bool row_security;
	char redirect; /* when its trigger fires, as in pg_trigger; or '\0' */
	BddShape shape;
	BddTargetColumn *columns; /* by attnum - 1 */
	bool plain_rows;          /* neither generated nor identity columns */
	BddKey key;
	Oid key_index;
	BddSharedSlot *slot;   /* NULL until somebody has to write */
	ExprContext *econtext; /* for defaults; made at first use */
	bool nested_types;     /* columns with composites inside */
	MemoryContext json_context;
	void *json;                      /* values.c: state for jsonb rows */
	struct BddStatement *statements; /* target_sql.c */
	bool letters_known;              /* dead_letter.c: before there is a slot */
	bool has_letters;
	bool journal_checked; /* no part of its journal is missing */
	Oid trusted_role;     /* may INSERT and UPDATE every column */
} BddTarget;

extern BddTarget *bdd_describe_target(Relation rel, const BddOptions *options,
									  MemoryContext context);
extern void bdd_check_usable(const BddTarget *target);
extern bool bdd_is_key_column(const BddTarget *target, AttrNumber attnum);
extern uint32 bdd_fingerprint(TupleDesc desc);
extern bool bdd_is_redirect(const Trigger *trigger);
extern void bdd_target_default(BddTarget *target, int column, Datum *value,
							   bool *isnull);

#endif /* BDD_DESCRIBE_H */
