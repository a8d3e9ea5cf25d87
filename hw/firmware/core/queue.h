/* The transmit queue: payloads wait here unsealed, so that seq and stamps are of the moment of sending. */
#ifndef EC_QUEUE_H
#define EC_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EC_QUEUE_BYTES 32768u
/* Kept free of SAMPLES, so that answers and events pass while the line is stalled. */
#define EC_QUEUE_RESERVE 4096u

typedef struct {
    uint8_t bytes[EC_QUEUE_BYTES];
    size_t head; /* oldest byte */
    size_t used;
} ec_queue;

/* Whether a payload of n bytes fits and leaves `spare` bytes free. */
bool ec_queue_fits(const ec_queue *queue, size_t n, size_t spare);

/* Append one payload; the caller has checked that it fits. */
void ec_queue_push(ec_queue *queue, uint8_t type, const uint8_t *payload, size_t n);

/* Take the oldest payload (at most EC_PAYLOAD_MAX bytes); returns its length, or -1 if there is none. */
int ec_queue_pop(ec_queue *queue, uint8_t *type, uint8_t *payload);

#endif
