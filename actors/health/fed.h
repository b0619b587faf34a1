/* fed: what the owner's health takes from the volumes of other replicas (fed.c), and what is said
 * for it over the bus by the actor on the replica (feed.c). How far a file was read is written in
 * the transaction that keeps what was in it, here: so no line is lost or counted twice, whoever of
 * the two dies when. */
#ifndef ACTORS_HEALTH_FED_H
#define ACTORS_HEALTH_FED_H

#include "actors/health/volume.h"

/* 64 bits of a hash are an INT as they are. */
#define fed_place_FIELDS(F)                                                                        \
    F(INT, offset, must, 0, 0, "So many bytes of the file were taken.")                            \
    F(INT, head_size, must, 0, 64, "Bytes at its beginning that were hashed.")                     \
    F(INT, head_hash, must, 0, 0, "Their hash.")
RECORD_STRUCT(fed_place, fed_place_FIELDS)
extern const record_t fed_place_record;

#define metric_feed_ARGS(F)                                                                        \
    F(STR, pod, must, 1, 63, "Whose volume it is.")                                                \
    F(INT, inode, must, 0, 0, "Of the file.")                                                      \
    F(STR, name, must, 1, 64, "Of the file.")                                                      \
    F(REC(fed_place), was, opt(), 0, 0, "What is known of it there; absent: nothing.")             \
    F(REC(fed_place), next, opt(), 0, 0, "The place behind the lines.")                            \
    F(BYTES, lines, opt(), 0, 262144, "Whole lines; absent: only ask.")                            \
    COMPANY_ROW(F)
#define metric_feed_REPLY(F)                                                                       \
    F(BOOL, taken, must, 0, 0, "They are kept. False: the file is known otherwise.")               \
    F(REC(fed_place), by_inode, must, 0, 0, "What is known of this inode now; zeros: nothing.")    \
    F(REC(fed_place), by_name, must, 0, 0, "What is known of the name: a restored file.")

#define metric_feed_begin_ARGS(F)                                                                  \
    F(STR, name, must, 1, 80, "A file in metrics/ of the replica.")                                \
    F(STR, token, must, 1, 64, "What is in it.")
#define metric_feed_begin_REPLY(F)                                                                 \
    F(BOOL, shared, must, 0, 0, "The owner sees that file: it reads that volume itself.")

#endif
