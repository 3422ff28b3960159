#include "words.h"

#include <ctype.h>
#include <stdlib.h>

static int is_word_byte(int byte)
{
    return isalnum(byte) || byte >= 0x80;
}

int words_read(FILE *stream, struct table *table)
{
    size_t capacity = 32, length = 0;
    char *word = malloc(capacity);
    int byte, result = word == NULL ? -1 : 0;

    while (result == 0) {
        byte = getc(stream);
        if (byte != EOF && is_word_byte(byte)) {
            if (length == capacity) {
                char *larger = realloc(word, capacity *= 2);
                if (larger == NULL) {
                    result = -1;
                    break;
                }
                word = larger;
            }
            word[length++] = (char)tolower(byte);
            continue;
        }
        if (length > 0)
            result = table_add(table, word, length);
        length = 0;
        if (byte == EOF)
            break;
    }
    if (ferror(stream))
        result = -1;
    free(word);
    return result;
}
