/* Consistent Overhead Byte Stuffing: Cheshire and Baker, IEEE/ACM Trans. Networking 7(2), 1999. */
#ifndef EC_COBS_H
#define EC_COBS_H

#include <stddef.h>
#include <stdint.h>

/* Encode n bytes into out, which holds n + n / 254 + 1 bytes; returns the bytes written, none of them 0. */
size_t ec_cobs_encode(const uint8_t *in, size_t n, uint8_t *out);

/* Decode in place (without the delimiter); returns the decoded length, 0 if the code is broken. */
size_t ec_cobs_decode(uint8_t *bytes, size_t n);

#endif
