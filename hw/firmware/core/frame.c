#include "frame.h"

#include "cobs.h"
#include "crc32.h"
#include "wire.h"

size_t ec_frame_seal(uint8_t *body, size_t payload_bytes, uint8_t type, uint32_t seq, bool has_prev,
                     uint32_t prev_tx_done_us, uint8_t *wire)
{
    uint8_t *p = body;
    p = ec_put_u8(p, EC_VERSION);
    p = ec_put_u8(p, type);
    p = ec_put_u8(p, has_prev ? EC_FLAG_HAS_PREV : 0u);
    p = ec_put_u8(p, 0);
    p = ec_put_u32(p, seq);
    p = ec_put_u32(p, has_prev ? prev_tx_done_us : 0u);
    const size_t covered = EC_HEAD_BYTES + payload_bytes;
    ec_put_u32(body + covered, ec_crc32(body, covered));
    const size_t n = ec_cobs_encode(body, covered + EC_CRC_BYTES, wire);
    wire[n] = 0;
    return n + 1;
}

bool ec_frame_open(uint8_t *bytes, size_t n, ec_frame *frame)
{
    const size_t body = ec_cobs_decode(bytes, n);
    if (body < EC_HEAD_BYTES + EC_CRC_BYTES || body > EC_BODY_MAX)
        return false;
    if (ec_get_u32(bytes + body - EC_CRC_BYTES) != ec_crc32(bytes, body - EC_CRC_BYTES))
        return false;
    if (bytes[0] != EC_VERSION)
        return false;
    frame->type = bytes[1];
    frame->payload = bytes + EC_HEAD_BYTES;
    frame->bytes = body - EC_HEAD_BYTES - EC_CRC_BYTES;
    return true;
}
