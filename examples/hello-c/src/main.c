/* wordfreq [-n COUNT] [FILE...]: lists the most frequent words of the files, or of standard input. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "table.h"
#include "words.h"

static int read_file(const char *name, struct table *table)
{
    FILE *stream = strcmp(name, "-") == 0 ? stdin : fopen(name, "r");
    if (stream == NULL) {
        fprintf(stderr, "wordfreq: %s: %s\n", name, strerror(errno));
        return -1;
    }
    int result = words_read(stream, table);
    if (result != 0)
        fprintf(stderr, "wordfreq: %s: cannot be read\n", name);
    if (stream != stdin)
        fclose(stream);
    return result;
}

int main(int count, char **arguments)
{
    struct table table;
    unsigned long limit = 10;
    int next = 1, failed = 0;

    if (count > 2 && strcmp(arguments[1], "-n") == 0) {
        char *end;
        limit = strtoul(arguments[2], &end, 10);
        if (*end != '\0' || end == arguments[2]) {
            fprintf(stderr, "wordfreq: -n takes a number, not %s\n", arguments[2]);
            return 2;
        }
        next = 3;
    }
    if (table_init(&table) != 0)
        return 1;
    if (next == count)
        failed |= read_file("-", &table);
    for (; next < count; next++)
        failed |= read_file(arguments[next], &table);
    failed |= report_top(stdout, &table, limit);
    table_free(&table);
    return failed == 0 ? 0 : 1;
}
