/* fuzz_words: any bytes are split, decoded and embedded within the promised bounds. */
#include <stdlib.h>
#include <string.h>
#include <unistr.h>

#include "actors/brain/embedder.h"
#include "actors/brain/words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

static void check_list(const word_list_t *list, size_t size)
{
    demand(list->count <= WORDS_MAX && list->count <= size * 6);
    for (size_t i = 0; i < list->count; i++) {
        const word_t *word = &list->words[i];
        demand(word->size > 0 && word->size <= WORDS_TERM_MAX);
        demand(strlen(word->term) == word->size);
        demand(words_is_utf8(word->term, word->size));
        demand(i == 0 || list->words[i - 1].position <= word->position);
        demand(word->position <= list->positions);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const languages[] = {"english", "german", "french", "none"};
    words_t *words = NULL;
    arena_t *arena = arena_new();
    word_list_t list;
    float vector[128];

    demand(words_is_utf8((const char *)data, size) == (u8_check(data, size) == NULL));
    demand(!err_is(words_new(&words, languages[size % 4])));
    words_split(words, arena, (const char *)data, size, &list);
    check_list(&list, size);
    err_t err = embedder_text(words, arena, (const char *)data, size, 128, vector);
    demand(!err_is(err) || err.code == ERR_ARGUMENT);
    words_destroy(&words);
    arena_destroy(&arena);
    return 0;
}
