/* The board: the core's HAL on this machine. */
#ifndef HOST_HOST_H
#define HOST_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "../core/device.h"
#include "counter.h"
#include "line.h"
#include "options.h"

#define HOST_EDGES 64u

typedef struct {
    int64_t raw_ns;
    bool down;
    uint32_t movement; /* of the finger: contacts bounce, so that each has several edges */
} edge;

typedef struct {
    options opts;
    counter clock;
    line line;
    ec_device device;
    ec_stream streams[EC_MAX_STREAMS];
    FILE *truth;
    uint64_t random;
    uint16_t boot_no;
    uint32_t run;
    uint8_t led[3]; /* shown now */
    bool reset_asked;
    bool power_lost; /* while unplugged */
    bool quit;
    edge edges[HOST_EDGES]; /* of the button, in order of time */
    uint32_t n_edges;
    uint32_t movements, moving; /* so many were asked for; the latest that has begun */
} host;

/* Power up: a new boot id, the counter at its start. Returns NULL or what is wrong with the streams. */
const char *host_boot(host *self, bool first);

/* Do everything that is due by now. */
void host_service(host *self);

/* When host_service() has something to do next; INT64_MAX for never. */
int64_t host_due_ns(const host *self);

/* Give the bytes that came over the line to the core. */
void host_read_line(host *self);

/* From when on the button may move: now, or after what is scheduled already. */
int64_t host_button_free_ns(const host *self);

/* Schedule the button's contact, with the bounces of a real one; false if too much is scheduled already. */
bool host_move_button(host *self, bool down, int64_t raw_ns);

/* Carry out one command from stdin and answer it on stdout. */
void control_obey(host *self, char *text);

#endif
