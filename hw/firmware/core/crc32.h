/* CRC-32 of IEEE 802.3: reflected polynomial 0xEDB88320, initial and final xor 0xFFFFFFFF. */
#ifndef EC_CRC32_H
#define EC_CRC32_H

#include <stddef.h>
#include <stdint.h>

uint32_t ec_crc32(const uint8_t *bytes, size_t n);

#endif
