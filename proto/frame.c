#include "proto/frame.h"

#include <string.h>

#include "proto/mp.h"

RECORD_DEFINE(header, header_FIELDS)

err_t frame_decode(bytes_t header, bytes_t body, arena_t *arena, header_t *out)
{
    if (header.size > FRAME_HEADER_LARGEST)
        return err_of(ERR_TOO_LARGE, "the header of the frame is larger than 16 KiB");
    if (body.size > FRAME_BODY_LARGEST)
        return err_of(ERR_TOO_LARGE, "the body of the frame is larger than 64 MiB");
    bytes_t version;
    int64_t number;
    if (!mp_get(header, "v", &version) || !mp_int(version, &number))
        return err_of(ERR_PARSE, "the header of the frame has no version");
    if (number != FRAME_VERSION)
        return err_make(arena, ERR_VERSION, "frame version %lld is not understood, only %d",
                        (long long)number, FRAME_VERSION);
    return record_decode(&header_record, header, arena, "header field", out);
}

void frame_encode(const header_t *header, buf_t *out)
{
    record_encode(&header_record, header, out);
}

static bool letter_or_digit(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool frame_company_name(const char *name)
{
    if (!name || !letter_or_digit(name[0]))
        return false;
    size_t size = 1;
    for (; name[size]; size++)
        if (size == 64 || !(letter_or_digit(name[size]) || name[size] == '_' || name[size] == '-'))
            return false;
    return true;
}
