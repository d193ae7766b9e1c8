/*-------------------------------------------------------------------------
 *
 * version.h
 *		The library and the extension's script are of one version.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_VERSION_H
#define BDD_VERSION_H

extern void bdd_check_version(void);
extern void bdd_version_changed(void);

#endif /* BDD_VERSION_H */
