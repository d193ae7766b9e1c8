/*-------------------------------------------------------------------------
 *
 * guc.h
 *		The settings, prefix "batchdedup.".
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_GUC_H
#define BDD_GUC_H

#include "base/base.h"

extern bool bdd_enabled;
extern int bdd_buffer_size_kb;
extern double bdd_max_target_share;
extern int bdd_flush_interval_ms;
extern int bdd_flush_rows;
extern int bdd_max_targets;
extern int bdd_full_timeout_ms;
extern int bdd_shutdown_timeout_ms;
extern int bdd_lock_timeout_ms;
extern int bdd_retry_backoff_ms;
extern int bdd_retry_limit;
extern int bdd_worker_idle_timeout_ms;
extern int bdd_max_journal_mb;
extern char *bdd_debug_point_setting;

extern void bdd_guc_init(void);
extern int bdd_backoff_ms(uint64 failures);

#endif /* BDD_GUC_H */
