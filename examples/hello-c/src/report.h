/* Prints what a table holds. */
#ifndef REPORT_H
#define REPORT_H

#include <stdio.h>

#include "table.h"

/* Prints the most frequent words, at most `limit` of them, equal ones by alphabet; -1 when memory ran out. */
int report_top(FILE *stream, const struct table *table, size_t limit);

#endif
