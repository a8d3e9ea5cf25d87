/* The serial line: a pty, and the faults that befall a line. */
#ifndef HOST_LINE_H
#define HOST_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int master; /* -1 while unplugged */
    int slave;  /* held open, so that the host program may come and go */
    char path[64];
    const char *link;
    uint64_t random;

    const uint8_t *frame; /* being sent; NULL when idle */
    size_t frame_bytes;
    size_t sent;
    uint8_t corrupted[2048];

    int64_t usb_frame_ns; /* 0: bytes leave at once */
    int64_t slot;         /* number of the USB frame in which the present frame may leave */
    size_t slot_bytes;    /* sent in that USB frame */

    int64_t stalled_until_ns;
    int64_t unplugged_until_ns; /* 0 while plugged in */
    int64_t retry_ns;           /* the pty was full */
    uint32_t drop;
    uint32_t corrupt;
} line;

/* Open a pty and link to it; false with errno set. */
bool line_plug(line *self);
void line_unplug(line *self);

void line_transmit(line *self, const uint8_t *bytes, size_t n, int64_t now_ns);

/* Send what may leave at now_ns, which is the present; true once the whole frame has. The host cannot have
 * its last byte earlier, so now_ns then is the moment of transfer-complete. */
bool line_pump(line *self, int64_t now_ns);

/* There is nothing more to send for now: later bytes wait for the next USB frame. */
void line_rest(line *self);

/* When line_pump() should be called next; INT64_MAX if there is nothing to send. */
int64_t line_due_ns(const line *self);

/* Put n random bytes on the line. */
void line_garbage(line *self, uint32_t n);

#endif
