#include "mlx90393.h"

#include <string.h>

#define MEASURE_XYZ 0x3Eu /* SM, with z y x */
#define READ_XYZ 0x4Eu    /* RM, with z y x */
#define READ_REGISTER 0x50u
#define WRITE_REGISTER 0x60u
#define EXIT 0x80u
#define RESET 0xF0u

#define STATUS_ERROR 0x10u
#define STATUS_RESET 0x04u

#define RESET_US 2000u /* the datasheet asks for 1.5 ms */
#define RETRY_US 1000000u
#define FAILURES 3u

/* Register, value. */
static const uint16_t SETUP[][2] = {
    {0x00, 0x007C}, /* GAIN_SEL 7, HALLCONF 0xC */
    {0x01, 0x0000}, /* no burst, no wake-up on change, no temperature compensation */
    {0x02, 0x0008}, /* OSR 0, DIG_FILT 2, RES 0 */
};
#define SETUP_STEPS (sizeof SETUP / sizeof *SETUP)

void ec_mlx90393_init(ec_mlx_group *group, const ec_i2c *i2c, const uint8_t *addresses, uint8_t n,
                      uint32_t period_us)
{
    memset(group, 0, sizeof *group);
    group->i2c = i2c;
    group->n = n < EC_MLX90393_MAX ? n : EC_MLX90393_MAX;
    group->period_us = period_us;
    for (uint8_t i = 0; i < group->n; i++)
        group->sensors[i].address = addresses[i];
}

static ec_i2c_result command(const ec_mlx_group *group, uint8_t op, uint8_t *in, size_t n)
{
    return group->i2c->transfer(group->i2c->ctx, group->sensors[group->at].address, &op, 1, in, n);
}

static void blame(ec_mlx_group *group, const char *why)
{
    group->fault = why;
    group->fault_address = group->sensors[group->at].address;
}

static const char *reason_of(ec_i2c_result result)
{
    return result == EC_I2C_STUCK ? "I2C bus is stuck: a line is held low" : "a sensor does not answer on I2C";
}

/* Reset, then one register after the other, each written and read back. True once a step has succeeded. */
static const char *set_up_step(ec_mlx_group *group)
{
    uint8_t status[3] = {0};
    ec_i2c_result result;
    if (group->step == 0) {
        result = command(group, EXIT, status, 1);
        if (result == EC_I2C_OK)
            result = command(group, RESET, status, 1);
        return result == EC_I2C_OK ? NULL : reason_of(result);
    }
    const uint16_t *entry = SETUP[group->step - 1];
    const uint8_t write[4] = {WRITE_REGISTER, (uint8_t)(entry[1] >> 8), (uint8_t)entry[1],
                              (uint8_t)(entry[0] << 2)};
    const uint8_t read[2] = {READ_REGISTER, (uint8_t)(entry[0] << 2)};
    const uint8_t address = group->sensors[group->at].address;
    result = group->i2c->transfer(group->i2c->ctx, address, write, sizeof write, status, 1);
    if (result == EC_I2C_OK)
        result = group->i2c->transfer(group->i2c->ctx, address, read, sizeof read, status, 3);
    if (result != EC_I2C_OK)
        return reason_of(result);
    if ((uint16_t)(status[1] << 8 | status[2]) != entry[1])
        return "a sensor does not keep its settings: is it an MLX90393?";
    return NULL;
}

static void set_up(ec_mlx_group *group, uint64_t now_us)
{
    const char *why = set_up_step(group);
    if (why != NULL) {
        blame(group, why);
        group->at = 0;
        group->step = 0;
        group->due_us = now_us + RETRY_US;
        return;
    }
    group->due_us = now_us + (group->step == 0 ? RESET_US : 0);
    if (++group->step <= SETUP_STEPS)
        return;
    group->step = 0;
    group->sensors[group->at].ready = true;
    group->sensors[group->at].failures = 0;
    if (++group->at < group->n)
        return;
    group->at = 0;
    group->round_us = now_us;
    group->state = EC_MLX_BEGIN;
}

/* A sensor that fails again and again is set up anew, with all others. */
static void note(ec_mlx_group *group, const char *why)
{
    ec_mlx90393 *sensor = &group->sensors[group->at];
    if (why == NULL) {
        sensor->failures = 0;
        return;
    }
    group->whole = false;
    blame(group, why);
    if (sensor->failures < FAILURES)
        sensor->failures++;
}

static void begin(ec_mlx_group *group, uint64_t now_us)
{
    if (group->at == 0) {
        group->whole = true;
        group->t_us = now_us;
    }
    uint8_t status = 0;
    const ec_i2c_result result = command(group, MEASURE_XYZ, &status, 1);
    note(group, result != EC_I2C_OK                          ? reason_of(result)
                : (status & (STATUS_ERROR | STATUS_RESET)) != 0 ? "a sensor refuses to measure"
                                                                : NULL);
    if (++group->at < group->n)
        return;
    group->at = 0;
    group->state = EC_MLX_READ;
    group->due_us = now_us + EC_MLX90393_ROUND_US;
}

static bool finish(ec_mlx_group *group, uint64_t now_us)
{
    bool broken = false;
    for (uint8_t i = 0; i < group->n; i++)
        broken = broken || group->sensors[i].failures >= FAILURES;
    group->at = 0;
    group->round_us += group->period_us;
    if (group->round_us < now_us)
        group->round_us = now_us;
    group->due_us = group->round_us;
    group->state = broken ? EC_MLX_SET_UP : EC_MLX_BEGIN;
    if (broken)
        group->due_us = now_us + RETRY_US;
    if (group->whole)
        group->fault = NULL;
    return group->whole;
}

static bool read(ec_mlx_group *group, uint64_t now_us)
{
    uint8_t in[1 + EC_MLX90393_AXES * 2u] = {0};
    const ec_i2c_result result = command(group, READ_XYZ, in, sizeof in);
    note(group, result != EC_I2C_OK             ? reason_of(result)
                : (in[0] & STATUS_ERROR) != 0 ? "a sensor has not finished measuring"
                                                : NULL);
    uint8_t *row = group->row + group->at * EC_MLX90393_AXES * 2u;
    for (size_t i = 0; i < EC_MLX90393_AXES * 2u; i += 2) { /* big-endian there */
        row[i] = in[1 + i + 1];
        row[i + 1] = in[1 + i];
    }
    if (++group->at < group->n)
        return false;
    return finish(group, now_us);
}

bool ec_mlx90393_step(ec_mlx_group *group, uint64_t (*now)(void *ctx), void *ctx)
{
    const uint64_t now_us = now(ctx);
    if (group->n == 0 || now_us < group->due_us)
        return false;
    switch (group->state) {
    case EC_MLX_SET_UP: set_up(group, now_us); return false;
    case EC_MLX_BEGIN: begin(group, now_us); return false;
    case EC_MLX_READ: return read(group, now_us);
    }
    return false;
}
