/* Rows of the audit log as somebody may have left them: read, or refused with a sentence. The hash
 * behind each is made to fit, since no fuzzer finds one. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bus/audit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    arena_t *arena = arena_new();
    audit_chain_t chain = {0}, before;
    audit_row_t row;
    uint8_t *value = arena_alloc(arena, size + DIGEST_BYTES);
    memcpy(value, data, size);
    digest_of((bytes_t){value, size}, value + size);
    /* Twice: the second time it follows itself, which no row may. */
    for (int i = 0; i < 2; i++) {
        int64_t number = i ? chain.next : 1;
        before = chain;
        err_t err =
            audit_chain_take(&chain, number, (bytes_t){value, size + DIGEST_BYTES}, arena, &row);
        if (err_is(err) ? err.code != ERR_CORRUPT || memcmp(&before, &chain, sizeof(chain)) != 0
                        : i || row.first != 1 || chain.next != row.last + 1)
            abort();
    }
    if (!err_is(audit_chain_take(&chain, chain.next, (bytes_t){data, size}, arena, &row)) &&
        size < DIGEST_BYTES)
        abort();
    arena_destroy(&arena);
    return 0;
}
