#include "table.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

/* FNV-1a, in the width of this machine. */
static size_t hash(const char *word, size_t length)
{
#if SIZEOF_SIZE_T == 8
    size_t value = 14695981039346656037u;
    const size_t prime = 1099511628211u;
#else
    size_t value = 2166136261u;
    const size_t prime = 16777619u;
#endif
    for (size_t i = 0; i < length; i++)
        value = (value ^ (unsigned char)word[i]) * prime;
    return value;
}

/* The slot that holds the word, or the free one where it belongs. */
static struct entry *find(const struct table *table, const char *word, size_t length)
{
    size_t index = hash(word, length) & (table->capacity - 1);
    for (;;) {
        struct entry *slot = &table->slots[index];
        if (slot->word == NULL)
            return slot;
        if (strlen(slot->word) == length && memcmp(slot->word, word, length) == 0)
            return slot;
        index = (index + 1) & (table->capacity - 1);
    }
}

int table_init(struct table *table)
{
    table->capacity = 64;
    table->used = 0;
    table->slots = calloc(table->capacity, sizeof *table->slots);
    return table->slots == NULL ? -1 : 0;
}

static int grow(struct table *table)
{
    struct table larger = {NULL, table->capacity * 2, table->used};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (larger.slots == NULL)
        return -1;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i].word != NULL)
            *find(&larger, table->slots[i].word, strlen(table->slots[i].word)) = table->slots[i];
    free(table->slots);
    *table = larger;
    return 0;
}

int table_add(struct table *table, const char *word, size_t length)
{
    if (table->used * 4 >= table->capacity * 3 && grow(table) != 0)
        return -1;
    struct entry *slot = find(table, word, length);
    if (slot->word == NULL) {
        slot->word = malloc(length + 1);
        if (slot->word == NULL)
            return -1;
        memcpy(slot->word, word, length);
        slot->word[length] = '\0';
        table->used++;
    }
    slot->count++;
    return 0;
}

size_t table_count(const struct table *table, const char *word)
{
    return find(table, word, strlen(word))->count;
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < table->capacity; i++)
        free(table->slots[i].word);
    free(table->slots);
}
