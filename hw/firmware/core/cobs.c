#include "cobs.h"

size_t ec_cobs_encode(const uint8_t *in, size_t n, uint8_t *out)
{
    size_t code_at = 0;
    size_t o = 1;
    uint8_t code = 1;
    for (size_t i = 0; i < n; i++) {
        if (in[i] != 0) {
            out[o++] = in[i];
            code++;
        }
        if (in[i] == 0 || code == 0xFF) {
            /* A full block at the very end needs no further code byte. */
            if (code == 0xFF && in[i] != 0 && i + 1 == n) {
                out[code_at] = code;
                return o;
            }
            out[code_at] = code;
            code_at = o++;
            code = 1;
        }
    }
    out[code_at] = code;
    return o;
}

size_t ec_cobs_decode(uint8_t *bytes, size_t n)
{
    size_t i = 0;
    size_t o = 0;
    while (i < n) {
        const uint8_t code = bytes[i++];
        if (code == 0 || i + (size_t)(code - 1) > n)
            return 0;
        for (uint8_t k = 1; k < code; k++) {
            if (bytes[i] == 0)
                return 0;
            bytes[o++] = bytes[i++];
        }
        if (code != 0xFF && i < n)
            bytes[o++] = 0;
    }
    return o;
}
