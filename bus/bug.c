#include "bus/bug.h"

#ifdef AGENCY_PLANTED_BUGS

static bug_t planted = BUG_NONE;

bool bug(bug_t which)
{
    return planted == which && which != BUG_NONE;
}

void bug_plant(bug_t which)
{
    planted = which;
}

const char *bug_name(bug_t which)
{
    static const char *const names[] = {
#define BUG_NAME(id, name, doc) name,
        BUG_ROWS(BUG_NAME)
#undef BUG_NAME
    };
    return which < BUG_COUNT ? names[which] : "";
}

const char *bug_doc(bug_t which)
{
    static const char *const docs[] = {
#define BUG_DOC(id, name, doc) doc,
        BUG_ROWS(BUG_DOC)
#undef BUG_DOC
    };
    return which < BUG_COUNT ? docs[which] : "";
}

#else

typedef int bug_is_not_planted_in_this_build; /* an empty file is no C */

#endif
