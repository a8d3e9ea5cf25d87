/* Frames: header, payload, CRC; COBS and the delimiter around them. */
#ifndef EC_FRAME_H
#define EC_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

/* Complete the body whose payload already lies at offset EC_HEAD_BYTES, and write it as it goes on the line.
 * `wire` holds EC_WIRE_MAX bytes. Returns the bytes to send, delimiter included. */
size_t ec_frame_seal(uint8_t *body, size_t payload_bytes, uint8_t type, uint32_t seq, bool has_prev,
                     uint32_t prev_tx_done_us, uint8_t *wire);

typedef struct {
    uint8_t type;
    const uint8_t *payload;
    size_t bytes;
} ec_frame;

/* Read one frame in place from the n bytes before a delimiter; false if it is not a valid frame. */
bool ec_frame_open(uint8_t *bytes, size_t n, ec_frame *frame);

#endif
