/*-------------------------------------------------------------------------
 *
 * loaded.h
 *		Whether the library can be used: it was loaded at start, and the
 *		extension's script is of its version.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_LOADED_H
#define BDD_LOADED_H

extern void bdd_check_preloaded(void);
extern void bdd_check_version(void);
extern void bdd_version_changed(void);

#endif /* BDD_LOADED_H */
