/* Little-endian bytes, independent of the machine's own order. */
#ifndef EC_WIRE_H
#define EC_WIRE_H

#include <stdint.h>
#include <string.h>

static inline uint8_t *ec_put_u8(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    return p + 1;
}

static inline uint8_t *ec_put_u16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    return p + 2;
}

static inline uint8_t *ec_put_u24(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    return p + 3;
}

static inline uint8_t *ec_put_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
    return p + 4;
}

static inline uint8_t *ec_put_f32(uint8_t *p, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return ec_put_u32(p, bits);
}

/* A string: its length in one byte, then its bytes; cut at `max`. */
static inline uint8_t *ec_put_text(uint8_t *p, const char *text, size_t max)
{
    size_t n = strlen(text);
    if (n > max)
        n = max;
    p = ec_put_u8(p, (uint32_t)n);
    memcpy(p, text, n);
    return p + n;
}

static inline uint32_t ec_get_u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t ec_get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

#endif
