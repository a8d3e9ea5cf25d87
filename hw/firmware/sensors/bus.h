/* Buses as the sensor drivers see them. A transfer returns within a bounded time whatever the sensor does. */
#ifndef EC_BUS_H
#define EC_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    void *ctx;
    /* Select the sensor, exchange n bytes, deselect; false if the bus gave up. `in` may be NULL. */
    bool (*transfer)(void *ctx, const uint8_t *out, uint8_t *in, size_t n);
} ec_spi;

typedef enum {
    EC_I2C_OK = 0,
    EC_I2C_NO_ANSWER, /* address or byte not acknowledged */
    EC_I2C_STUCK      /* the bus does not move: a line is held low */
} ec_i2c_result;

typedef struct {
    void *ctx;
    /* Write n_out bytes to the 7-bit address, then, after a repeated start, read n_in. */
    ec_i2c_result (*transfer)(void *ctx, uint8_t address, const uint8_t *out, size_t n_out, uint8_t *in,
                              size_t n_in);
} ec_i2c;

#endif
