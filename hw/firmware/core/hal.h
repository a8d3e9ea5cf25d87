/* What the core needs from a board. Every function returns at once. */
#ifndef EC_HAL_H
#define EC_HAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    void *ctx;
    /* The free-running microsecond counter; wraps at 2^32. */
    uint32_t (*micros)(void *ctx);
    /* A number that differs at every power-up and reset; asked for once. */
    uint32_t (*boot_id)(void *ctx);
    /* Send n bytes, which stay valid until the board calls ec_transmitted(); one call at a time. */
    void (*transmit)(void *ctx, const uint8_t *bytes, size_t n);
    /* Write the row that the sensor took at t_us (the counter, extended to 64 bits) in the stream's wire
     * format; false if the sensor gave none. `index` counts this stream's rows since START. Never asked for a
     * stream whose rows are given (ec_give_row). */
    bool (*read_sensor)(void *ctx, uint8_t stream, uint32_t index, uint64_t t_us, uint8_t *row);
    /* Whether the sensor answers, as far as the board can tell; asked four times a second while idle. */
    bool (*alive)(void *ctx, uint8_t stream);
    /* START (true) and STOP (false). */
    void (*sampling)(void *ctx, bool on);
    /* Whether a stream can be sampled at this rate from the next START on; false if it cannot. */
    bool (*rate)(void *ctx, uint8_t stream, uint32_t rate_mhz);
    /* Make the present reading of a stream its zero; false if it cannot. */
    bool (*tare)(void *ctx, uint8_t stream);
    /* Show this colour from now on; rhythms are made by the core. */
    void (*led)(void *ctx, uint8_t red, uint8_t green, uint8_t blue);
    /* Restart the device as after power-up; may return, the core then waits to be initialised anew. */
    void (*reset)(void *ctx);
} ec_hal;

#endif
