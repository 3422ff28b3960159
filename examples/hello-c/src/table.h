/* A hash table from words to how often they were seen. */
#ifndef TABLE_H
#define TABLE_H

#include <stddef.h>

struct entry {
    char *word;
    size_t count;
};

struct table {
    struct entry *slots; /* a slot without a word is free */
    size_t capacity;     /* a power of two */
    size_t used;
};

/* Each returns 0, or -1 when memory ran out. */
int table_init(struct table *table);
int table_add(struct table *table, const char *word, size_t length);

/* The count of a word, 0 for one that was never added. */
size_t table_count(const struct table *table, const char *word);
void table_free(struct table *table);

#endif
