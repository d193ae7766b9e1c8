/*-------------------------------------------------------------------------
 *
 * init.c
 *		Start of the library.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "apply/target_sql.h"
#include "base/guc.h"
#include "base/loaded.h"
#include "batch/barrier_hint.h"
#include "commit/xact.h"
#include "fmgr.h"
#include "journal/shutdown_file.h"
#include "main/shmem.h"
#include "miscadmin.h"
#include "proxy/conflict.h"
#include "proxy/view.h"
#include "read/lookup.h"
#include "sql/statement.h"
#include "watch/ddl.h"
#include "watch/guard.h"
#include "worker/launcher.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

/*
 * Without a place in shared memory no function works, but the library can be
 * loaded: bdd_check_preloaded says what to do.
 */
void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	bdd_guc_init();
	if (IsBinaryUpgrade)
	{
		bdd_shutdown_file_refuse_upgrade();
		return;
	}
	bdd_preloaded = true;
	bdd_shmem_init();
	bdd_xact_init();
	bdd_barrier_hint_init();
	bdd_statement_init();
	bdd_guard_init();
	bdd_ddl_init();
	bdd_target_sql_init();
	bdd_conflict_init();
	bdd_lookup_init();
	bdd_view_init();
	bdd_launcher_register();
}
