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

#define WAS_RESET "was reset, supply or wire interrupted?"

#define RESET_US 2000u /* the datasheet asks for 1.5 ms */
#define RETRY_US 1000000u
#define FAILURES 3u
/* A step of a set-up takes at most so long; it is left for later where it would delay a round. */
#define STEP_US 500u

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
    group->at = group->n;
    for (uint8_t i = 0; i < group->n; i++)
        group->sensors[i].address = addresses[i];
}

static ec_i2c_result command(const ec_mlx_group *group, const ec_mlx90393 *sensor, uint8_t op, uint8_t *in,
                             size_t n)
{
    return group->i2c->transfer(group->i2c->ctx, sensor->address, &op, 1, in, n);
}

static const char *reason_of(ec_i2c_result result)
{
    switch (result) {
    case EC_I2C_OK: return NULL;
    case EC_I2C_NO_ANSWER: return "no answer on I2C";
    case EC_I2C_STUCK: return "I2C bus is stuck, a line is held low";
    }
    return "I2C";
}

/* ── setting a sensor up ─────────────────────────────────────────────────────────────────────────────── */

/* Reset, then one register after the other, each written and read back. NULL once a step has succeeded. */
static const char *set_up_step(const ec_mlx_group *group, const ec_mlx90393 *sensor)
{
    uint8_t status[3] = {0};
    ec_i2c_result result;
    if (sensor->step == 0) {
        result = command(group, sensor, EXIT, status, 1);
        if (result == EC_I2C_OK)
            result = command(group, sensor, RESET, status, 1);
        return reason_of(result);
    }
    const uint16_t *entry = SETUP[sensor->step - 1];
    const uint8_t write[4] = {WRITE_REGISTER, (uint8_t)(entry[1] >> 8), (uint8_t)entry[1],
                              (uint8_t)(entry[0] << 2)};
    const uint8_t read[2] = {READ_REGISTER, (uint8_t)(entry[0] << 2)};
    result = group->i2c->transfer(group->i2c->ctx, sensor->address, write, sizeof write, status, 1);
    if (result == EC_I2C_OK)
        result = group->i2c->transfer(group->i2c->ctx, sensor->address, read, sizeof read, status, 3);
    if (result == EC_I2C_OK && (uint16_t)(status[1] << 8 | status[2]) != entry[1])
        return "keeps no settings, is it another chip?";
    return reason_of(result);
}

static void set_up(const ec_mlx_group *group, ec_mlx90393 *sensor, uint64_t now_us)
{
    const char *why = set_up_step(group, sensor);
    if (why != NULL) {
        sensor->fault = why;
        sensor->step = 0;
        sensor->due_us = now_us + RETRY_US;
        return;
    }
    sensor->due_us = now_us + (sensor->step == 0 ? RESET_US : 0);
    if (++sensor->step <= SETUP_STEPS)
        return;
    sensor->step = 0;
    sensor->failures = 0;
    sensor->ready = true; /* the fault is forgotten with its first row */
    sensor->fresh = true;
}

/* ── rounds ──────────────────────────────────────────────────────────────────────────────────────────── */

/* Out of the rounds, and set up anew; at once, since it may only have lost its supply for a moment. */
static void expel(ec_mlx90393 *sensor, uint64_t now_us)
{
    sensor->ready = false;
    sensor->begun = false;
    sensor->step = 0;
    sensor->due_us = now_us;
}

static void note_failure(ec_mlx90393 *sensor, const char *why, uint64_t now_us)
{
    sensor->fault = why;
    if (++sensor->failures >= FAILURES)
        expel(sensor, now_us);
}

static void begin(const ec_mlx_group *group, ec_mlx90393 *sensor, uint64_t now_us)
{
    uint8_t status = 0;
    const ec_i2c_result result = command(group, sensor, MEASURE_XYZ, &status, 1);
    const bool was_reset = (status & STATUS_RESET) != 0 && !sensor->fresh;
    sensor->begun = false;
    sensor->fresh = false; /* this first time, it may speak of the reset in its set-up */
    if (result != EC_I2C_OK) {
        note_failure(sensor, reason_of(result), now_us);
    } else if (was_reset) {
        sensor->fault = WAS_RESET;
        expel(sensor, now_us);
    } else if ((status & STATUS_ERROR) != 0) {
        note_failure(sensor, "refuses to measure", now_us);
    } else {
        sensor->begun = true;
        sensor->t_us = now_us;
    }
}

static bool read(const ec_mlx_group *group, ec_mlx90393 *sensor, uint64_t now_us)
{
    uint8_t in[1 + EC_MLX90393_ROW_BYTES] = {0};
    const ec_i2c_result result = command(group, sensor, READ_XYZ, in, sizeof in);
    sensor->begun = false;
    if (result == EC_I2C_OK && (in[0] & STATUS_RESET) != 0) { /* after its command: that it says only once */
        sensor->fault = WAS_RESET;
        expel(sensor, now_us);
        return false;
    }
    if (result != EC_I2C_OK || (in[0] & STATUS_ERROR) != 0) {
        note_failure(sensor, result != EC_I2C_OK ? reason_of(result) : "not done measuring in time", now_us);
        return false;
    }
    for (size_t i = 0; i < EC_MLX90393_ROW_BYTES; i += 2) { /* big-endian there */
        sensor->row[i] = in[1 + i + 1];
        sensor->row[i + 1] = in[1 + i];
    }
    sensor->failures = 0;
    sensor->fault = NULL;
    return true;
}

/* The first sensor from `from` on that has a turn in this half of the round; n if none has. */
static uint8_t find_turn(const ec_mlx_group *group, uint8_t from)
{
    while (from < group->n && !(group->reading ? group->sensors[from].begun : group->sensors[from].ready))
        from++;
    return from;
}

static void end_round(ec_mlx_group *group, uint64_t now_us)
{
    group->reading = false;
    group->round_us += group->period_us;
    if (group->round_us < now_us)
        group->round_us = now_us;
    group->at = find_turn(group, 0);
}

static int take_turn(ec_mlx_group *group, uint64_t now_us)
{
    const uint8_t at = group->at;
    int row = EC_MLX90393_NO_ROW;
    if (!group->reading)
        begin(group, &group->sensors[at], now_us);
    else if (read(group, &group->sensors[at], now_us))
        row = at;
    group->at = find_turn(group, at + 1);
    if (group->at == group->n && !group->reading) {
        group->reading = true;
        group->at = find_turn(group, 0);
    }
    if (group->at == group->n)
        end_round(group, now_us);
    return row;
}

static uint64_t turn_us(const ec_mlx_group *group)
{
    if (group->at == group->n)
        return UINT64_MAX;
    return group->reading ? group->sensors[group->at].t_us + EC_MLX90393_ROUND_US : group->round_us;
}

/* ── both ────────────────────────────────────────────────────────────────────────────────────────────── */

/* The sensor that has waited longest to be set up; NULL if all are. */
static ec_mlx90393 *next_set_up(ec_mlx_group *group)
{
    ec_mlx90393 *found = NULL;
    for (uint8_t i = 0; i < group->n; i++) {
        ec_mlx90393 *sensor = &group->sensors[i];
        if (!sensor->ready && (found == NULL || sensor->due_us < found->due_us))
            found = sensor;
    }
    return found;
}

static void set_up_one(ec_mlx_group *group, uint64_t now_us)
{
    ec_mlx90393 *sensor = next_set_up(group);
    if (sensor == NULL || sensor->due_us > now_us || turn_us(group) - now_us < STEP_US)
        return;
    set_up(group, sensor, now_us);
    if (sensor->ready && group->at == group->n) { /* the first one */
        group->round_us = now_us;
        group->at = find_turn(group, 0);
    }
}

static uint64_t next_us(ec_mlx_group *group, uint64_t now_us)
{
    const uint64_t turn = turn_us(group);
    const ec_mlx90393 *sensor = next_set_up(group);
    if (sensor == NULL)
        return turn;
    const uint64_t due = sensor->due_us > now_us ? sensor->due_us : now_us;
    return due < turn && turn - due >= STEP_US ? due : turn;
}

int ec_mlx90393_step(ec_mlx_group *group, uint64_t (*now)(void *ctx), void *ctx)
{
    const uint64_t now_us = now(ctx);
    if (group->n == 0 || now_us < group->due_us)
        return EC_MLX90393_NO_ROW;
    int row = EC_MLX90393_NO_ROW;
    if (now_us >= turn_us(group))
        row = take_turn(group, now_us);
    else
        set_up_one(group, now_us);
    group->due_us = next_us(group, now_us);
    return row;
}
