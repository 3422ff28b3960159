/* Splits a stream into words: runs of letters, digits and bytes above ASCII, in lower case. */
#ifndef WORDS_H
#define WORDS_H

#include <stdio.h>

#include "table.h"

/* Adds every word of the stream to the table; -1 when memory ran out or reading failed. */
int words_read(FILE *stream, struct table *table);

#endif
