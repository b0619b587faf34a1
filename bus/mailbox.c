#include "bus/mailbox.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LETTERS_MOST = 20000 };

struct mailbox {
    pthread_mutex_t mutex;
    letter_t *first, **end;
    size_t count;
    uint32_t life;
    bool open, asleep;
    int fd;
    pthread_mutex_t turn; /* who has it does the owner's work */
    atomic_bool wanted;   /* by the owner */
    void *lent;           /* with the turn */
    uint32_t lent_life;
};

letter_t *letter_new(const address_t *to, const route_t *route, bytes_t header, bytes_t body)
{
    letter_t *letter = malloc(sizeof(*letter) + header.size + body.size);
    if (!letter)
        abort();
    letter->next = NULL;
    letter->to = *to;
    letter->has_route = route != NULL;
    if (route)
        letter->route = *route;
    memcpy(letter->data, header.data, header.size);
    if (body.size)
        memcpy(letter->data + header.size, body.data, body.size);
    letter->header = (bytes_t){letter->data, header.size};
    letter->body = (bytes_t){letter->data + header.size, body.size};
    return letter;
}

mailbox_t *mailbox_new(void)
{
    mailbox_t *box = calloc(1, sizeof(*box));
    if (!box)
        abort();
    pthread_mutex_init(&box->mutex, NULL);
    pthread_mutex_init(&box->turn, NULL);
    box->end = &box->first;
    box->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return box;
}

void mailbox_destroy(mailbox_t **box)
{
    if (!*box)
        return;
    mailbox_close(*box);
    close((*box)->fd);
    pthread_mutex_destroy(&(*box)->mutex);
    pthread_mutex_destroy(&(*box)->turn);
    free(*box);
    *box = NULL;
}

uint32_t mailbox_open(mailbox_t *box)
{
    pthread_mutex_lock(&box->mutex);
    uint32_t life = box->open ? 0 : ++box->life;
    if (life) {
        box->open = true;
        box->asleep = false;
    }
    pthread_mutex_unlock(&box->mutex);
    return life;
}

/* With the lock. */
static letter_t *take_all(mailbox_t *box)
{
    letter_t *all = box->first;
    box->first = NULL;
    box->end = &box->first;
    box->count = 0;
    return all;
}

void mailbox_close(mailbox_t *box)
{
    pthread_mutex_lock(&box->mutex);
    box->open = false;
    letter_t *letter = take_all(box);
    pthread_mutex_unlock(&box->mutex);
    while (letter) {
        letter_t *gone = letter;
        letter = letter->next;
        free(gone);
    }
}

void mailbox_post(letter_t *letter)
{
    mailbox_t *box = letter->to.box;
    bool wake = false;
    pthread_mutex_lock(&box->mutex);
    bool taken = box->open && box->life == letter->to.life && box->count < LETTERS_MOST;
    if (taken) {
        *box->end = letter;
        box->end = &letter->next;
        box->count++;
        wake = box->asleep;
        box->asleep = false;
    }
    pthread_mutex_unlock(&box->mutex);
    if (wake)
        eventfd_write(box->fd, 1);
    if (!taken)
        free(letter); /* the sender asks again */
}

int mailbox_fd(const mailbox_t *box)
{
    return box->fd;
}

bool mailbox_sleep(mailbox_t *box)
{
    pthread_mutex_lock(&box->mutex);
    bool empty = !box->first;
    box->asleep = empty;
    pthread_mutex_unlock(&box->mutex);
    return empty;
}

letter_t *mailbox_take(mailbox_t *box)
{
    pthread_mutex_lock(&box->mutex);
    box->asleep = false;
    letter_t *all = take_all(box);
    pthread_mutex_unlock(&box->mutex);
    return all;
}

void mailbox_lend(mailbox_t *box, uint32_t life, void *owner)
{
    box->lent = owner;
    box->lent_life = life;
    pthread_mutex_unlock(&box->turn);
}

/* Borrowers come and go faster than a mutex is fair: they stay away from one that is wanted. */
void mailbox_take_back(mailbox_t *box)
{
    atomic_store(&box->wanted, true);
    pthread_mutex_lock(&box->turn);
    atomic_store(&box->wanted, false);
    box->lent = NULL;
}

void *mailbox_borrow(const address_t *to)
{
    mailbox_t *box = to->box;
    if (atomic_load(&box->wanted) || pthread_mutex_trylock(&box->turn))
        return NULL;
    void *owner = box->lent_life == to->life ? box->lent : NULL;
    if (!owner)
        pthread_mutex_unlock(&box->turn);
    return owner;
}

void mailbox_give_back(const address_t *to)
{
    pthread_mutex_unlock(&to->box->turn);
}
