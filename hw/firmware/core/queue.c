#include "queue.h"

#include <string.h>

#define RECORD_HEAD 3u /* u16 length, u8 type */

bool ec_queue_fits(const ec_queue *queue, size_t n, size_t spare)
{
    return queue->used + RECORD_HEAD + n + spare <= EC_QUEUE_BYTES;
}

static void write_ring(ec_queue *queue, const uint8_t *bytes, size_t n)
{
    const size_t at = (queue->head + queue->used) % EC_QUEUE_BYTES;
    const size_t first = n < EC_QUEUE_BYTES - at ? n : EC_QUEUE_BYTES - at;
    memcpy(queue->bytes + at, bytes, first);
    memcpy(queue->bytes, bytes + first, n - first);
    queue->used += n;
}

static void read_ring(ec_queue *queue, uint8_t *bytes, size_t n)
{
    const size_t first = n < EC_QUEUE_BYTES - queue->head ? n : EC_QUEUE_BYTES - queue->head;
    memcpy(bytes, queue->bytes + queue->head, first);
    memcpy(bytes + first, queue->bytes, n - first);
    queue->head = (queue->head + n) % EC_QUEUE_BYTES;
    queue->used -= n;
}

void ec_queue_push(ec_queue *queue, uint8_t type, const uint8_t *payload, size_t n)
{
    const uint8_t head[RECORD_HEAD] = {(uint8_t)n, (uint8_t)(n >> 8), type};
    write_ring(queue, head, RECORD_HEAD);
    write_ring(queue, payload, n);
}

int ec_queue_pop(ec_queue *queue, uint8_t *type, uint8_t *payload)
{
    if (queue->used == 0)
        return -1;
    uint8_t head[RECORD_HEAD];
    read_ring(queue, head, RECORD_HEAD);
    const size_t n = (size_t)head[0] | (size_t)head[1] << 8;
    *type = head[2];
    read_ring(queue, payload, n);
    return (int)n;
}
