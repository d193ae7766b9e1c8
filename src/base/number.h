/*-------------------------------------------------------------------------
 *
 * number.h
 *		Numbers of one to ten bytes, the smaller the fewer (LEB128).
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_NUMBER_H
#define BDD_NUMBER_H

#include "base/base.h"

#include "lib/stringinfo.h"

/* Seven bits a byte, the lowest first; the highest bit: more follow. */
static inline void
bdd_put_number(StringInfo buffer, uint64 number)
{
	while (number >= 0x80)
	{
		appendStringInfoCharMacro(buffer, (char) (number | 0x80));
		number >>= 7;
	}
	appendStringInfoCharMacro(buffer, (char) number);
}

/* Takes one off the front of the data; false: there is none before "end". */
static inline bool
bdd_get_number(const char **data, const char *end, uint64 *number)
{
	*number = 0;
	for (int shift = 0; *data < end && shift < 64; shift += 7)
	{
		uint8 byte = (uint8) (*data)[0];

		(*data)++;
		*number |= (uint64) (byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

#endif /* BDD_NUMBER_H */
