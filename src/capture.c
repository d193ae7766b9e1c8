#include "capture.h"
void
bdd_capture_create(BddSync *sync)
{
	elog(ERROR, "not yet");
}
void
bdd_capture_drop(const BddSync *sync)
{
}
