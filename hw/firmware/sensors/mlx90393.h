/* MLX90393 magnetometers on one I2C bus, measured together. Commands, registers and conversion time as in Melexis'
 * datasheet 3901090393.
 *
 * A round: every sensor is told to measure, and read when its conversion must be over. The row's time is that of the
 * first command; the measurement follows it, which the lag (negative) tells. */
#ifndef EC_MLX90393_H
#define EC_MLX90393_H

#include <stdbool.h>
#include <stdint.h>

#include "bus.h"

#define EC_MLX90393_MAX 8u
#define EC_MLX90393_AXES 3u
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

typedef struct {
    uint8_t address;
    bool ready;        /* set up */
    uint8_t failures;  /* rounds in a row that it did not answer */
} ec_mlx90393;

typedef enum { EC_MLX_SET_UP = 0, EC_MLX_BEGIN, EC_MLX_READ } ec_mlx_state;

typedef struct {
    const ec_i2c *i2c;
    ec_mlx90393 sensors[EC_MLX90393_MAX];
    uint8_t n;
    uint32_t period_us;
    ec_mlx_state state;
    uint8_t at;          /* the sensor whose turn it is */
    uint8_t step;        /* of its set-up */
    uint64_t due_us;
    uint64_t round_us;   /* when this round was due */
    uint64_t t_us;       /* when its first command was sent */
    bool whole;          /* so far, every sensor of the round has answered */
    const char *fault;   /* why there is no row; NULL while all is well */
    uint8_t fault_address;
    uint8_t row[EC_MLX90393_MAX * EC_MLX90393_AXES * 2];
} ec_mlx_group;

/* Sensors at these 7-bit addresses, measured every `period_us`. */
void ec_mlx90393_init(ec_mlx_group *group, const ec_i2c *i2c, const uint8_t *addresses, uint8_t n,
                      uint32_t period_us);

/* Do what is due, a transfer or two of one sensor. True when group->row (x, y, z of each sensor, int16, little-endian), taken at
 * group->t_us, is complete; a round in which a sensor failed gives no row. */
bool ec_mlx90393_step(ec_mlx_group *group, uint64_t (*now)(void *ctx), void *ctx);

#endif
