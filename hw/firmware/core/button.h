/* Debouncing: a level counts once it has held for EC_BUTTON_STABLE_US; its time is the first edge's. */
#ifndef EC_BUTTON_H
#define EC_BUTTON_H

#include <stdbool.h>
#include <stdint.h>

#define EC_BUTTON_STABLE_US 5000u

typedef struct {
    bool down;     /* debounced */
    bool level;    /* last raw level */
    bool unsettled;
    uint64_t first_edge_us;
    uint64_t last_edge_us;
} ec_button;

/* A raw edge of the contact. */
void ec_button_edge(ec_button *button, bool level, uint64_t t_us);

/* Whether the debounced state changed by `now_us`; if so `t_us` is when it began to. */
bool ec_button_settle(ec_button *button, uint64_t now_us, uint64_t *t_us);

#endif
