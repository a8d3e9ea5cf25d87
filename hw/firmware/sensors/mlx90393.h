/* MLX90393 magnetometers on one I2C bus, measured in step, each a stream of its own. Commands, registers and
 * conversion time as in Melexis' datasheet 3901090393.
 *
 * A round: every sensor that works is told to measure, and read when its conversion must be over. A row's time is that
 * of its own sensor's command; the measurement follows it, which the lag (negative) tells. A sensor that fails leaves
 * the round and is set up anew between the rounds of the others, which go on. */
#ifndef EC_MLX90393_H
#define EC_MLX90393_H

#include <stdbool.h>
#include <stdint.h>

#include "bus.h"

#define EC_MLX90393_MAX 8u
#define EC_MLX90393_AXES 3u
#define EC_MLX90393_ROW_BYTES (2u * EC_MLX90393_AXES)
/* At HALLCONF 0xC, GAIN_SEL 7 and RES 0, as set here; µT per step, and 2^15 of them. */
#define EC_MLX90393_XY_UT 0.150f
#define EC_MLX90393_Z_UT 0.242f
#define EC_MLX90393_XY_FULL_UT 4915.2f
#define EC_MLX90393_Z_FULL_UT 7929.856f
/* One axis at OSR 0 and DIG_FILT 2: 67 + 64 * (2 + 4) us; all three, with what waking up and ending take. */
#define EC_MLX90393_AXIS_US 451u
#define EC_MLX90393_ROUND_US 2500u
/* Middle of the three axes' conversions after the command: about 0.4 ms to wake up, then half of 1.35 ms. */
#define EC_MLX90393_LAG_US (-1100)

#define EC_MLX90393_NO_ROW (-1)

typedef struct {
    uint8_t address;
    bool ready;        /* set up; takes part in the rounds */
    bool fresh;        /* not told to measure yet */
    bool begun;        /* was told to measure in this round */
    uint8_t step;      /* of its set-up */
    uint8_t failures;  /* in a row */
    uint64_t due_us;   /* the next step of its set-up */
    uint64_t t_us;     /* when it was told to measure */
    const char *fault; /* why it gives no rows; NULL while all is well */
    uint8_t row[EC_MLX90393_ROW_BYTES]; /* x, y, z, int16, little-endian */
} ec_mlx90393;

typedef struct {
    const ec_i2c *i2c;
    ec_mlx90393 sensors[EC_MLX90393_MAX];
    uint8_t n;
    uint32_t period_us;
    bool reading;      /* second half of the round */
    uint8_t at;        /* the sensor whose turn it is; n while none takes part */
    uint64_t round_us; /* when the round is due */
    uint64_t due_us;   /* when ec_mlx90393_step() next has something to do */
} ec_mlx_group;

/* Sensors at these 7-bit addresses, measured every `period_us`. */
void ec_mlx90393_init(ec_mlx_group *group, const ec_i2c *i2c, const uint8_t *addresses, uint8_t n,
                      uint32_t period_us);

/* Do what is due, a transfer or two of one sensor. Returns the number of a sensor whose `row`, taken at its `t_us`, is new,
 * or EC_MLX90393_NO_ROW. */
int ec_mlx90393_step(ec_mlx_group *group, uint64_t (*now)(void *ctx), void *ctx);

#endif
