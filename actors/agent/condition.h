/* condition: the small language of ```if. docs/sop.md is the user's reference.
 *
 *   any  = all { "or" all }             all = one { "and" one }
 *   one  = "not" one | "(" any ")" | "exists" {{reference}}
 *        | operand [ ("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") operand ]
 *   operand = {{reference}} | "text" | 'text' | number | true | false | null
 *
 * A text that reads as a number counts as that number beside a number: what scripts print is text.
 * `and` and `or` do not look at their right side when the left one decides, so
 * `exists {{input.n}} and {{input.n}} > 3` is good. Thread: pure.
 */
#ifndef AGENT_CONDITION_H
#define AGENT_CONDITION_H

#include "actors/agent/values.h"

/* Is it true? `values` NULL: only the form is checked. ERR_ARGUMENT: the form is wrong, or values
 * cannot be compared; ERR_NOT_FOUND, ERR_STATE as value_get. `*at` is how far it was read: after an
 * error, where it is. Without values nothing holds. */
err_t condition_holds(arena_t *arena, const values_t *values, const char *text, size_t size,
                      size_t *at, bool *holds);

#endif
