/* mailbox: how the loops of one process hand each other frames: a list that any thread may lengthen
 * and one loop empties. Against a pair of sockets it saves the copies, the polls and the questions
 * whether a socket is really ready; only a loop that sleeps is woken.
 *
 * Boxes live as long as their host and are used again. An address says which life of a box is
 * meant, so a letter to a loop that has ended is dropped, like a frame to a closed socket.
 * Thread: any, where nothing else is said. The lock guards the list and is held to link a letter or
 * to take all of them, never during a system call. */
#ifndef BUS_MAILBOX_H
#define BUS_MAILBOX_H

#include "bus/env.h"

typedef struct mailbox mailbox_t;

typedef struct address {
    mailbox_t *box; /* NULL: that of the loop itself */
    uint32_t life;
    uint8_t place; /* of the actor, in its loop */
} address_t;

/* A frame for one actor. */
typedef struct letter {
    struct letter *next;
    address_t to;
    bool has_route;
    route_t route;
    bytes_t header, body;
    uint8_t data[];
} letter_t;

/* `route` may be NULL; everything is copied. free() ends it. */
letter_t *letter_new(const address_t *to, const route_t *route, bytes_t header, bytes_t body);

mailbox_t *mailbox_new(void);
void mailbox_destroy(mailbox_t **box);
/* Begins a life and says which. 0: it has one already. */
uint32_t mailbox_open(mailbox_t *box);
/* Ends it and drops what is in it. */
void mailbox_close(mailbox_t *box);

/* Takes the letter; drops it when that life is over or nobody has emptied the box for long. */
void mailbox_post(letter_t *letter);

/* The owner's: becomes readable when a letter comes and the owner sleeps. An eventfd; others may
 * write to it as well. */
int mailbox_fd(const mailbox_t *box);
/* The owner is going to wait for the descriptor. False: there are letters. */
bool mailbox_sleep(mailbox_t *box);
/* All letters, the oldest first; the owner is awake. */
letter_t *mailbox_take(mailbox_t *box);

/* While the owner sleeps another thread may do its work (bus/host_lend.c). The owner holds a second
 * lock all its life except between these two; it waits for a borrower, who never waits for it. */
void mailbox_lend(mailbox_t *box, uint32_t life, void *owner);
void mailbox_take_back(mailbox_t *box);
/* The owner that was lent under this address. NULL: it is awake, lent to somebody else or gone. */
void *mailbox_borrow(const address_t *to);
void mailbox_give_back(const address_t *to);

#endif
