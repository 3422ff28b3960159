#include "report.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->count != b->count)
        return a->count < b->count ? 1 : -1;
    return strcmp(a->word, b->word);
}

int report_top(FILE *stream, const struct table *table, size_t limit)
{
    struct entry *entries = calloc(table->used + 1, sizeof *entries);
    size_t filled = 0;

    if (entries == NULL)
        return -1;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i].word != NULL)
            entries[filled++] = table->slots[i];
    qsort(entries, filled, sizeof *entries, compare);
    for (size_t i = 0; i < filled && i < limit; i++)
        fprintf(stream, "%7zu %s\n", entries[i].count, entries[i].word);
    free(entries);
    return 0;
}
